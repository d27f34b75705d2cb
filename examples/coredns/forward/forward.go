//go:build cgo && linux

package forward

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/dnstap"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

// Forward is the handler of all forward stanzas of one server block.
type Forward struct {
	Next plugin.Handler

	config   []byte // for the module
	services uint32
	taps     []*dnstap.Dnstap

	current atomic.Pointer[instance] // nil before OnStartup
	mu      sync.Mutex               // to replace it
}

// Name implements plugin.Handler. CoreDNS looks for this name: with it in the chain, CH queries are not refused.
func (f *Forward) Name() string { return "forward" }

var errNotStarted = errors.New("not started")

// A parcel is what crosses into C for one query.
type parcel struct {
	verdict C.struct_bridge_verdict
	wire    [512]byte
}

var parcels = sync.Pool{New: func() any { return new(parcel) }}

// stackNeed is what the way to the module and back, and the writing of the answer, take of a goroutine's stack.
const stackNeed = 4 << 10

// reserve has the stack grow here, where little is on it that must be copied, and not where it is deepest: CoreDNS begins a goroutine with the
// smallest stack for every query.
//
//go:noinline
func reserve(i int) byte {
	var room [stackNeed]byte
	return room[i&(stackNeed-1)]
}

// ServeDNS implements plugin.Handler.
func (f *Forward) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	reserve(int(r.Id))
	if err := ctx.Err(); err != nil {
		return dns.RcodeServerFailure, err
	}
	p := parcels.Get().(*parcel)
	wire, err := r.PackBuffer(p.wire[:])
	if err != nil {
		parcels.Put(p)
		return f.refuse(ctx, w, r, err)
	}
	s := takeSlot()
	if s == nil {
		parcels.Put(p)
		return dns.RcodeServerFailure, errors.New("too many queries in flight")
	}
	state := request.Request{W: w, Req: r}
	if f.watches(ctx) {
		s.watched.Store(true)
	}
	err = f.exchange(ctx, s, flagsOf(&state), wire, &p.verdict)
	if s.watched.Load() {
		f.report(ctx, s, state)
	}
	end := endOf(ctx, s, &p.verdict, err, &state)
	parcels.Put(p)
	s.put()
	if end.next {
		return plugin.NextOrFailure(f.Name(), f.Next, ctx, w, r)
	}
	if end.answer != nil {
		w.WriteMsg(end.answer)
		return 0, nil
	}
	return end.rcode, end.err
}

// exchange serves the query and waits.
func (f *Forward) exchange(ctx context.Context, s *slot, flags uint32, wire []byte, verdict *C.struct_bridge_verdict) error {
	for {
		i, err := f.enter()
		if err != nil {
			return err
		}
		err = i.serve(ctx, s, flags, wire, verdict)
		i.leave()
		if err != errStopped {
			return err
		}
	}
}

// enter returns an instance that lives until leave. After OnShutdown that is a new one, which ends with the handler: caddy does not really stop a
// server that had not quite begun, and such a one goes on serving.
func (f *Forward) enter() (*instance, error) {
	if i := f.current.Load(); i != nil && i.enter() {
		return i, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.current.Load()
	if i == nil {
		return nil, errNotStarted
	}
	if i.enter() {
		return i, nil
	}
	i, err := newInstance(f.config, f.services)
	if err != nil {
		return nil, err
	}
	i.enter()
	f.current.Store(i)
	return i, nil
}

// match tells whether a stanza takes the name.
func (f *Forward) match(qname []byte) bool {
	i, err := f.enter()
	if err != nil {
		return true
	}
	defer i.leave()
	return i.match(qname)
}

// refuse ends a query that cannot be packed (case 52): it is the next plugin's unless a stanza takes its name.
func (f *Forward) refuse(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, cause error) (int, error) {
	var qname [256]byte
	state := request.Request{W: w, Req: r}
	n, err := dns.PackDomainName(state.Name(), qname[:], 0, nil, false)
	if err == nil && !f.match(qname[:n]) {
		return plugin.NextOrFailure(f.Name(), f.Next, ctx, w, r)
	}
	return dns.RcodeFormatError, fmt.Errorf("proxy: invalid request: %w", cause)
}

func flagsOf(state *request.Request) uint32 {
	if state.Proto() == "tcp" {
		return C.FWD_QUERY_TCP
	}
	return 0
}

// An ending is what ServeDNS does at last: an answer, the next plugin, or an rcode with its error.
type ending struct {
	answer *dns.Msg
	next   bool
	rcode  int
	err    error
}

func failed(err error) ending { return ending{rcode: dns.RcodeServerFailure, err: err} }

// endOf makes of verdict and completion what CoreDNS understands.
func endOf(ctx context.Context, s *slot, verdict *C.struct_bridge_verdict, err error, state *request.Request) ending {
	if err != nil {
		return failed(err)
	}
	switch verdict.verdict {
	case C.FWD_VERDICT_NEXT:
		return ending{next: true}
	case C.FWD_VERDICT_ACCEPTED:
		// below
	default:
		detail := verdict.detail[:]
		return ending{rcode: int(verdict.rcode), err: errors.New(C.GoString((*C.char)(unsafe.Pointer(&detail[0]))))}
	}
	if s.c.upstream_len > 0 && metadata.ValueFuncs(ctx) != nil {
		upstream := string(s.upstream())
		metadata.SetValueFunc(ctx, "forward/upstream", func() string { return upstream })
	}
	switch s.c.kind {
	case C.FWD_KIND_ANSWER:
		return answerOf(s.answer(), uint32(s.c.proto), state)
	case C.FWD_KIND_NEXT:
		return ending{next: true}
	case C.FWD_KIND_CANCELED:
		if err := ctx.Err(); err != nil {
			return failed(err)
		}
		return failed(errStopped)
	default:
		return ending{rcode: int(s.c.rcode), err: errors.New(s.detail())}
	}
}

// answerOf unpacks the answer. The module has looked at it, but knows fewer types than miekg/dns, which may find more to object to.
func answerOf(wire []byte, proto uint32, state *request.Request) ending {
	answer := new(dns.Msg)
	if err := answer.Unpack(wire); err != nil {
		if proto != C.FWD_PROTO_UDP || !isOverflow(err) {
			return failed(fmt.Errorf("unpack answer: %w", err))
		}
		answer.Answer, answer.Ns, answer.Extra = nil, nil, nil // case 76
		answer.Truncated = true
	}
	if !state.Match(answer) { // case 54
		formerr := new(dns.Msg)
		formerr.SetRcode(state.Req, dns.RcodeFormatError)
		return ending{answer: formerr}
	}
	return ending{answer: answer}
}

func isOverflow(err error) bool {
	return errors.Is(err, dns.ErrBuf) || strings.Contains(err.Error(), "overflow")
}
