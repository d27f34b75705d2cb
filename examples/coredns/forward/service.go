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

// What comes up from the module: the calls of its services, while its loop is turned or inside serve. Nothing here blocks, and nothing of C's memory
// is kept.

var log = clog.NewWithPlugin("forward")

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
