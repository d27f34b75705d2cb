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
	"unsafe"
)

// A slot is what the goroutine of one query waits with. Its half in C's memory takes the end of the query, so that C holds no pointer of Go's.
// Slots are reused and never given back; there are about as many as queries were in flight at most.
type slot struct {
	c     *C.struct_bridge_slot
	shard *shard
	ended chan struct{} // holds one: waking never blocks

	watched atomic.Bool // taps or spans are wanted
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
	chunkSlots = 64
	maxChunks  = 1 << 15
	shardCount = 16
	keptAnswer = 4096 // a larger buffer is not kept
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

// takeSlot returns a free slot, or nil when memory is out or two million queries are in flight.
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
	halves := C.bridge_slots(C.uint64_t(chunkCount*chunkSlots), chunkSlots)
	if halves == nil {
		return false
	}
	made := new([chunkSlots]slot)
	list := unsafe.Slice(halves, chunkSlots)
	for i := range made {
		made[i].c = &list[i]
		made[i].shard = sh
		made[i].ended = make(chan struct{}, 1)
		sh.free = append(sh.free, &made[i])
	}
	chunks[chunkCount].Store(made)
	chunkCount++
	return true
}

// slotOf returns the slot that belongs to a half in C.
func slotOf(half *C.struct_bridge_slot) *slot {
	return &chunks[half.index/chunkSlots].Load()[half.index%chunkSlots]
}

// slotOfToken does so for a token, the half's address. C's callbacks only have that.
func slotOfToken(token C.uint64_t) *slot {
	return slotOf(*(**C.struct_bridge_slot)(unsafe.Pointer(&token)))
}

// query is room for the query as it goes into the module.
func (s *slot) query() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&s.c.query[0])), len(s.c.query))
}

// answer and upstream are C's memory, valid until put.
func (s *slot) answer() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(s.c.wire)), int(s.c.wire_len))
}

func (s *slot) upstream() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&s.c.upstream[0])), int(s.c.upstream_len))
}

func (s *slot) udp() bool { return s.c.proto == C.FWD_PROTO_UDP }

func (s *slot) detail() string { return C.GoString(&s.c.detail[0]) }

// put gives the slot back; nothing of it may be used any more.
func (s *slot) put() {
	if s.c.wire_cap > keptAnswer {
		C.bridge_slot_shrink(s.c)
	}
	if s.watched.Load() {
		s.watched.Store(false)
		s.events = nil
	}
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
