//go:build cgo && linux

package forward

/*
#include "bridge.h"
*/
import "C"

import (
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// What comes up from the module: completions, which one goroutine fetches, and the calls of its services, on its own threads or inside serve.
// Nothing here blocks, and nothing of C's memory is kept.

var log = clog.NewWithPlugin("forward")

// collect wakes the goroutines of ended queries, for ever. It sleeps in Go's own poller, so that the module's threads need not enter Go, for which
// they would have to compete with goroutines.
func collect(event *os.File) {
	var octets [8]byte
	for {
		if !wakeEnded() {
			runtime.Gosched() // what was woken runs now, and more may end meanwhile
			if !wakeEnded() && sleep() {
				event.Read(octets[:])
			}
		}
	}
}

// wakeEnded wakes those whose queries have ended, in the order in which they did.
func wakeEnded() bool {
	newest := (*C.struct_bridge_slot)(atomic.SwapPointer((*unsafe.Pointer)(unsafe.Pointer(&C.bridge_ended)), nil))
	var oldest *C.struct_bridge_slot
	for newest != nil {
		newest, newest.next, oldest = newest.next, oldest, newest
	}
	any := oldest != nil
	for oldest != nil {
		next := oldest.next // the slot is its goroutine's as soon as that is woken
		slotOf(oldest).ended <- struct{}{}
		oldest = next
	}
	return any
}

// sleep has the next completion make the event readable. It returns false when one has come already.
func sleep() bool {
	asleep := (*uint32)(unsafe.Pointer(&C.bridge_asleep))
	atomic.StoreUint32(asleep, 1)
	if atomic.LoadPointer((*unsafe.Pointer)(unsafe.Pointer(&C.bridge_ended))) == nil {
		return true
	}
	// if the other side was faster, the event is or will be readable, and an idle turn comes of it later
	atomic.StoreUint32(asleep, 0)
	return false
}

// octets is C's memory seen as a slice.
func octets(data *C.uint8_t, n C.uint32_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(data)), int(n))
}

//export fwdBridgeLog
func fwdBridgeLog(level C.uint32_t, text *C.char, n C.uint32_t) {
	line := C.GoStringN(text, C.int(n))
	switch level {
	case C.FWD_LEVEL_ERROR:
		log.Error(line)
	case C.FWD_LEVEL_WARNING:
		log.Warning(line)
	case C.FWD_LEVEL_DEBUG:
		log.Debug(line)
	default:
		log.Info(line)
	}
}

// fwdBridgeTap and fwdBridgeSpan put an event into the slot: the query's goroutine passes it on, since only it may touch the query's metadata.
//
//export fwdBridgeTap
func fwdBridgeTap(t *C.struct_fwd_tap_event) {
	addEvent(t.token, func() event {
		return event{
			kind:   uint32(t.kind),
			wire:   append([]byte(nil), octets(t.wire, t.wire_len)...),
			proto:  uint32(t.proto),
			start:  timeOf(t.query_time_ns),
			end:    timeOf(t.response_time_ns),
			local:  addressOf(&t.local),
			remote: addressOf(&t.remote),
		}
	})
}

//export fwdBridgeSpan
func fwdBridgeSpan(span *C.struct_fwd_span) {
	addEvent(span.token, func() event {
		return event{
			proto:    uint32(span.proto),
			start:    timeOf(span.start_ns),
			end:      timeOf(span.end_ns),
			upstream: C.GoString(span.upstream),
		}
	})
}

func addEvent(token C.uint64_t, made func() event) {
	s := slotOfToken(token)
	if !s.watched.Load() {
		return
	}
	s.mu.Lock()
	s.events = append(s.events, made())
	s.mu.Unlock()
}

func timeOf(ns C.uint64_t) time.Time {
	return time.Unix(0, int64(ns))
}

// address is a fwd_addr.
type address struct {
	ip   net.IP
	port int
	zone uint32
}

func addressOf(a *C.struct_fwd_addr) address {
	octets := unsafe.Slice((*byte)(unsafe.Pointer(&a.ip[0])), len(a.ip))
	made := address{port: int(a.port), zone: uint32(a.scope_id)}
	switch a.family {
	case 4:
		made.ip = append(net.IP(nil), octets[:4]...)
	case 6:
		made.ip = append(net.IP(nil), octets...)
	}
	return made
}
