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
	"net"
	"strings"
	"sync"
	"sync/atomic"

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

var errTooMany = errors.New("too many queries in flight")

// What ask returns besides an rcode.
const (
	answered = -1 - iota // the answer is in the slot
	passed               // it is the next plugin's
)

// ServeDNS implements plugin.Handler. CoreDNS begins a goroutine with the smallest stack for every query, and letting one grow costs as much as a
// system call. So frames are small here, and nothing lies below the two deep calls, Unpack and WriteMsg, that need not.
func (f *Forward) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	s := takeSlot()
	if s == nil {
		return dns.RcodeServerFailure, errTooMany
	}
	code, err := f.ask(ctx, s, w, r)
	if code != answered {
		s.put()
		if code == passed {
			return plugin.NextOrFailure(f.Name(), f.Next, ctx, w, r)
		}
		return code, err
	}
	answer := new(dns.Msg)
	err = unpacked(answer, answer.Unpack(s.answer()), s.udp())
	s.put()
	if err != nil {
		return dns.RcodeServerFailure, err
	}
	if !matches(answer, r) { // case 54
		answer = new(dns.Msg).SetRcode(r, dns.RcodeFormatError)
	}
	w.WriteMsg(answer)
	return 0, nil
}

// ask hands the query to the module and waits for its end. It returns answered, passed, or an rcode with its error.
func (f *Forward) ask(ctx context.Context, s *slot, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if err := ctx.Err(); err != nil {
		return dns.RcodeServerFailure, err
	}
	wire, err := r.PackBuffer(s.query())
	if err != nil {
		return f.refuse(r, err)
	}
	watched := f.watches(ctx)
	if watched {
		s.watched.Store(true)
	}
	err = f.exchange(ctx, s, flagsOf(w), wire)
	if watched {
		f.report(ctx, s, request.Request{W: w, Req: r})
	}
	if err != nil {
		return dns.RcodeServerFailure, err
	}
	return s.ending(ctx)
}

// exchange serves the query and waits.
func (f *Forward) exchange(ctx context.Context, s *slot, flags uint32, wire []byte) error {
	for {
		i, err := f.enter()
		if err != nil {
			return err
		}
		err = i.serve(ctx, s, flags, wire)
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
func (f *Forward) refuse(r *dns.Msg, cause error) (int, error) {
	var qname [256]byte
	state := request.Request{Req: r}
	n, err := dns.PackDomainName(state.Name(), qname[:], 0, nil, false)
	if err == nil && !f.match(qname[:n]) {
		return passed, nil
	}
	return dns.RcodeFormatError, fmt.Errorf("proxy: invalid request: %w", cause)
}

func flagsOf(w dns.ResponseWriter) uint32 {
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); tcp {
		return C.FWD_QUERY_TCP
	}
	return 0
}

// ending makes of verdict and completion what ask returns.
func (s *slot) ending(ctx context.Context) (int, error) {
	switch s.c.verdict {
	case C.FWD_VERDICT_NEXT:
		return passed, nil
	case C.FWD_VERDICT_RCODE:
		return int(s.c.rcode), errors.New(s.detail())
	}
	if s.c.upstream_len > 0 && metadata.ValueFuncs(ctx) != nil {
		upstream := string(s.upstream())
		metadata.SetValueFunc(ctx, "forward/upstream", func() string { return upstream })
	}
	switch s.c.kind {
	case C.FWD_KIND_ANSWER:
		return answered, nil
	case C.FWD_KIND_NEXT:
		return passed, nil
	case C.FWD_KIND_CANCELED:
		if err := ctx.Err(); err != nil {
			return dns.RcodeServerFailure, err
		}
		return dns.RcodeServerFailure, errStopped
	default:
		return int(s.c.rcode), errors.New(s.detail())
	}
}

// unpacked tells whether an answer can be used after all whose Unpack returned err, and makes it so. The module has looked at it, but knows fewer
// types than miekg/dns, which may find more to object to.
func unpacked(answer *dns.Msg, err error, udp bool) error {
	if err == nil {
		return nil
	}
	if !udp || !isOverflow(err) {
		return fmt.Errorf("unpack answer: %w", err)
	}
	answer.Answer, answer.Ns, answer.Extra = nil, nil, nil // case 76
	answer.Truncated = true
	return nil
}

// matches is Request.Match, which has two names made anew, where the answer does not repeat the question to the letter.
func matches(answer, query *dns.Msg) bool {
	if answer.Response && len(answer.Question) == 1 && len(query.Question) > 0 && answer.Question[0] == query.Question[0] {
		return true
	}
	state := request.Request{Req: query}
	return state.Match(answer)
}

func isOverflow(err error) bool {
	return errors.Is(err, dns.ErrBuf) || strings.Contains(err.Error(), "overflow")
}
