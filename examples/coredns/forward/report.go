//go:build cgo && linux

package forward

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"net"

	"github.com/coredns/coredns/plugin/dnstap"
	"github.com/coredns/coredns/plugin/dnstap/msg"
	"github.com/coredns/coredns/request"

	tap "github.com/dnstap/golang-dnstap"
	ot "github.com/opentracing/opentracing-go"
	otext "github.com/opentracing/opentracing-go/ext"
)

// watches tells whether anybody wants to hear of this query's attempts.
func (f *Forward) watches(ctx context.Context) bool {
	return len(f.taps) > 0 || ot.SpanFromContext(ctx) != nil
}

// report passes on what the module told of each attempt, on the query's goroutine.
func (f *Forward) report(ctx context.Context, s *slot, state request.Request) {
	s.mu.Lock()
	events := s.events
	s.mu.Unlock()
	span := ot.SpanFromContext(ctx)
	for i := range events {
		e := &events[i]
		if e.kind != 0 {
			for _, t := range f.taps {
				t.TapMessageWithMetadata(ctx, message(e, t), state)
			}
		} else if span != nil {
			child := span.Tracer().StartSpan("connect", ot.ChildOf(span.Context()), ot.StartTime(e.start))
			otext.PeerAddress.Set(child, e.upstream)
			child.FinishWithOptions(ot.FinishOptions{FinishTime: e.end})
		}
	}
}

// message makes a FORWARDER_QUERY or FORWARDER_RESPONSE (case 82): query_address is our socket, response_address the upstream.
func message(e *event, t *dnstap.Dnstap) *tap.Message {
	m := new(tap.Message)
	msg.SetQueryTime(m, e.start)
	if e.local.ip != nil {
		msg.SetQueryAddress(m, e.local.as(e.proto))
	}
	msg.SetResponseAddress(m, e.remote.as(e.proto))
	kind := tap.Message_FORWARDER_QUERY
	if e.kind == C.FWD_TAP_FORWARDER_RESPONSE {
		kind = tap.Message_FORWARDER_RESPONSE
		msg.SetResponseTime(m, e.end)
	}
	if t.IncludeRawMessage && e.kind == C.FWD_TAP_FORWARDER_RESPONSE {
		m.ResponseMessage = e.wire
	} else if t.IncludeRawMessage {
		m.QueryMessage = e.wire
	}
	msg.SetType(m, kind)
	return m
}

// as is the address as CoreDNS has it for this transport.
func (a address) as(proto uint32) net.Addr {
	if proto == C.FWD_PROTO_UDP {
		return &net.UDPAddr{IP: a.ip, Port: a.port}
	}
	return &net.TCPAddr{IP: a.ip, Port: a.port}
}
