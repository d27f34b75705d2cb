//go:build cgo && linux

package forward

/*
#include "bridge.h"
*/
import "C"

import (
	"net"
	"time"
	"unsafe"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// What the module calls, on its own threads (fwdBridgeTap and the like also inside serve). Nothing here blocks, and nothing of C's memory is kept.

var log = clog.NewWithPlugin("forward")

// fwdBridgeDone takes everything that one turn of an I/O loop finished and wakes the goroutines.
//
//export fwdBridgeDone
func fwdBridgeDone(completions *C.struct_fwd_completion, count C.uint32_t) {
	batch := unsafe.Slice(completions, int(count))
	for i := range batch {
		c := &batch[i]
		s := slotOf(uint64(c.token))
		if s == nil {
			log.Errorf("the module ended a query that was never asked: %d", uint64(c.token))
			continue
		}
		s.kind = uint32(c.kind)
		s.rcode = int(c.rcode)
		s.proto = uint32(c.proto)
		s.answer = append(s.answer[:0], octets(c.wire, c.wire_len)...)
		s.upLen = copyText(s.upstream[:], c.upstream)
		if c.detail != nil {
			s.detail = string(unsafe.Slice((*byte)(unsafe.Pointer(c.detail)), int(c.detail_len)))
		}
		s.ended <- struct{}{}
	}
}

// octets is C's memory seen as a slice.
func octets(data *C.uint8_t, n C.uint32_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(data)), int(n))
}

// copyText copies a string of C's, without a call into C.
func copyText(to []byte, from *C.char) int {
	if from == nil {
		return 0
	}
	n := 0
	for p := (*byte)(unsafe.Pointer(from)); *p != 0 && n < len(to); p = (*byte)(unsafe.Add(unsafe.Pointer(p), 1)) {
		to[n] = *p
		n++
	}
	return n
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
	addEvent(uint64(t.token), func() event {
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
	addEvent(uint64(span.token), func() event {
		return event{
			proto:    uint32(span.proto),
			start:    timeOf(span.start_ns),
			end:      timeOf(span.end_ns),
			upstream: C.GoString(span.upstream),
		}
	})
}

func addEvent(token uint64, made func() event) {
	s := slotOf(token)
	if s == nil || !s.watched {
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
