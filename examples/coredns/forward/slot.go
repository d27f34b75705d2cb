//go:build cgo && linux

package forward

/*
#include "bridge.h"
*/
import "C"

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A slot is where the end of one query is put down for the goroutine that waits for it. Its index is the token by which the module names the
// query, so that C holds no pointer of Go's. Slots are reused and never given back; there are about as many as queries were in flight at most.
type slot struct {
	token uint64
	shard *shard
	ended chan struct{} // holds one: the callback never blocks

	kind     uint32
	rcode    int
	proto    uint32
	answer   []byte // the buffer stays with the slot
	detail   string
	upstream [96]byte // text, upstreamLen octets of it
	upLen    int

	watched bool // taps or spans are wanted
	mu      sync.Mutex
	events  []event
}

// An event is a tap or a span, in the order in which the module reported them.
type event struct {
	kind          uint32 // FWD_TAP_*, or 0 for a span
	wire          []byte
	proto         uint32
	start, end    time.Time
	local, remote address
	upstream      string
}

const (
	chunkSlots  = 64
	maxChunks   = 1 << 15
	shardCount  = 16
	keptAnswer  = 4096 // a larger buffer is not kept
	answerGuess = 512
)

type shard struct {
	mu   sync.Mutex
	free []*slot
	_    [64]byte // each on a cache line of its own
}

var (
	chunks     [maxChunks]atomic.Pointer[[chunkSlots]slot]
	chunkMu    sync.Mutex
	chunkCount int
	shards     [shardCount]shard
)

// takeSlot returns a free slot, or nil when two million queries are in flight.
func takeSlot() *slot {
	sh := &shards[rand.Uint32()%shardCount]
	sh.mu.Lock()
	if len(sh.free) == 0 && !sh.grow() {
		sh.mu.Unlock()
		return nil
	}
	last := len(sh.free) - 1
	s := sh.free[last]
	sh.free = sh.free[:last]
	sh.mu.Unlock()
	return s
}

// grow adds a chunk of slots. Called with the shard's mutex held.
func (sh *shard) grow() bool {
	chunkMu.Lock()
	defer chunkMu.Unlock()
	if chunkCount == maxChunks {
		return false
	}
	made := new([chunkSlots]slot)
	for i := range made {
		made[i].token = uint64(chunkCount*chunkSlots + i)
		made[i].shard = sh
		made[i].ended = make(chan struct{}, 1)
		sh.free = append(sh.free, &made[i])
	}
	chunks[chunkCount].Store(made)
	chunkCount++
	return true
}

// slotOf returns the slot of a token.
func slotOf(token uint64) *slot {
	if token >= maxChunks*chunkSlots {
		return nil
	}
	chunk := chunks[token/chunkSlots].Load()
	if chunk == nil {
		return nil
	}
	return &chunk[token%chunkSlots]
}

// put gives the slot back; nothing of it may be used any more.
func (s *slot) put() {
	if cap(s.answer) > keptAnswer {
		s.answer = nil
	}
	s.upLen = 0
	s.detail = ""
	s.events = nil
	s.watched = false
	s.shard.mu.Lock()
	s.shard.free = append(s.shard.free, s)
	s.shard.mu.Unlock()
}

// slotsInUse counts the queries that wait.
func slotsInUse() int {
	chunkMu.Lock()
	n := chunkCount * chunkSlots
	chunkMu.Unlock()
	for i := range shards {
		shards[i].mu.Lock()
		n -= len(shards[i].free)
		shards[i].mu.Unlock()
	}
	return n
}
