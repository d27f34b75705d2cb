//go:build cgo && linux

package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metadata"

	"github.com/miekg/dns"
	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"
)

// Fact 10: the answer goes through WriteMsg, once, and ServeDNS says that it has been written.
func TestAnswer(t *testing.T) {
	u := newUpstream(t, echo)
	f := handler(t, "forward . "+u.addr)
	for _, tcp := range []bool{false, true} {
		w := &writer{tcp: tcp}
		m := question("www.example.org.")
		code, err := f.ServeDNS(context.Background(), w, m)
		if code != 0 || err != nil {
			t.Fatalf("tcp %v: got %d, %v", tcp, code, err)
		}
		if w.msgs != 1 || w.writes != 0 {
			t.Fatalf("tcp %v: WriteMsg %d times, Write %d times", tcp, w.msgs, w.writes)
		}
		if w.msg.Id != m.Id || len(w.msg.Answer) != 1 || w.msg.Rcode != dns.RcodeSuccess {
			t.Fatalf("tcp %v: got %v", tcp, w.msg)
		}
	}
	if slotsInUse() != 0 {
		t.Fatalf("%d slots are still taken", slotsInUse())
	}
}

type following struct{ called int }

func (n *following) Name() string { return "following" }
func (n *following) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	n.called++
	return dns.RcodeNameError, nil
}

// Case 42: what no stanza matches is for the next plugin, whatever it is; without one it is CoreDNS's error.
func TestNoMatch(t *testing.T) {
	u := newUpstream(t, echo)
	f := handler(t, "forward example.org "+u.addr+" {\nexcept no.example.org\n}")
	next := &following{}
	for _, name := range []string{"example.com.", "x.no.example.org."} {
		_, err := f.ServeDNS(context.Background(), &writer{}, question(name))
		if err == nil || err.Error() != "plugin/forward: no next plugin found" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	f.Next = next
	if code, _ := f.ServeDNS(context.Background(), &writer{}, question("example.com.")); code != dns.RcodeNameError || next.called != 1 {
		t.Fatalf("got %d, the next plugin was called %d times", code, next.called)
	}
	if u.queries.Load() != 0 {
		t.Fatal("the upstream was asked")
	}
}

// Fact 10 and case 56: next leads to a following forward of ours, not to another plugin; a following forward that does not match leads on.
func TestNext(t *testing.T) {
	nx, good := newUpstream(t, rcode(dns.RcodeNameError)), newUpstream(t, echo)
	stanzas := func(from string) string {
		return fmt.Sprintf("forward . %s {\nnext NXDOMAIN\n}\nforward %s %s", nx.addr, from, good.addr)
	}
	w := &writer{}
	f := handler(t, stanzas("."))
	if code, err := f.ServeDNS(context.Background(), w, question("example.org.")); code != 0 || err != nil || w.msg.Rcode != 0 {
		t.Fatalf("two stanzas: got %d, %v, %v", code, err, w.msg)
	}
	next := &following{}
	f = handler(t, stanzas("other.test"))
	f.Next = next
	if _, err := f.ServeDNS(context.Background(), &writer{}, question("example.org.")); err != nil || next.called != 1 {
		t.Fatalf("second does not match: %v, the next plugin was called %d times", err, next.called)
	}
	w = &writer{}
	f = handler(t, "forward . "+nx.addr+" {\nnext NXDOMAIN\n}")
	f.Next = next
	if _, err := f.ServeDNS(context.Background(), w, question("example.org.")); err != nil || next.called != 1 || w.msg.Rcode != dns.RcodeNameError {
		t.Fatalf("last stanza: %v, %v, the next plugin was called %d times", err, w.msg, next.called)
	}
}

// Cases 43 and 57: over max_concurrent REFUSED is returned, not written; without an answer SERVFAIL, with the error for plugin errors.
func TestRcodes(t *testing.T) {
	silent := newUpstream(t, mute)
	f := handler(t, "forward . "+silent.addr+" {\nmax_concurrent 1\nmax_connect_attempts 1\nread_timeout 300ms\n}")
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		defer group.Done()
		w := &writer{}
		code, err := f.ServeDNS(context.Background(), w, question("example.org."))
		if code != dns.RcodeServerFailure || err == nil || !strings.Contains(err.Error(), "timeout") || w.msgs != 0 {
			t.Errorf("mute upstream: got %d, %v", code, err)
		}
	}()
	eventually(t, "the first query is in flight", func() bool { return silent.queries.Load() == 1 })
	w := &writer{}
	code, err := f.ServeDNS(context.Background(), w, question("example.org."))
	if code != dns.RcodeRefused || err == nil || err.Error() != "concurrent queries exceeded maximum 1" || w.msgs != 0 {
		t.Errorf("second query: got %d, %v", code, err)
	}
	group.Wait()
}

// Case 52: what cannot be packed is FORMERR, and nobody is asked.
func TestLocalPackError(t *testing.T) {
	u := newUpstream(t, echo)
	f := handler(t, "forward example.org "+u.addr)
	m := question("www.example.org.")
	m.Extra = append(m.Extra, &dns.TXT{Hdr: dns.RR_Header{Name: strings.Repeat("a", 64) + ".", Rrtype: dns.TypeTXT, Class: dns.ClassINET}})
	code, err := f.ServeDNS(context.Background(), &writer{}, m)
	if code != dns.RcodeFormatError || err == nil || !strings.HasPrefix(err.Error(), "proxy: invalid request: ") {
		t.Fatalf("got %d, %v", code, err)
	}
	m.Question[0].Name = "www.example.com."
	f.Next = &following{}
	if code, err := f.ServeDNS(context.Background(), &writer{}, m); code != dns.RcodeNameError || err != nil {
		t.Fatalf("no match: got %d, %v", code, err)
	}
	if u.queries.Load() != 0 {
		t.Fatal("the upstream was asked")
	}
}

// Fact 13, cases 52, 92, 94: a TSIG and two OPTs reach the upstream as they came.
func TestOddQueries(t *testing.T) {
	seen := make(chan *dns.Msg, 1)
	u := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) { seen <- r; echo(w, r) })
	f := handler(t, "forward . "+u.addr)
	for name, change := range map[string]func(*dns.Msg){
		"tsig": func(m *dns.Msg) {
			m.Extra = append(m.Extra, &dns.TSIG{Hdr: dns.RR_Header{Name: "key.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
				Algorithm: dns.HmacSHA256, TimeSigned: 1, Fudge: 300, MACSize: 4, MAC: "01020304", OrigId: m.Id})
		},
		"two OPTs": func(m *dns.Msg) { m.SetEdns0(1232, true); m.SetEdns0(4096, false) },
	} {
		m := question("example.org.")
		change(m)
		before := m.Copy()
		if code, err := f.ServeDNS(context.Background(), &writer{}, m); code != 0 || err != nil {
			t.Fatalf("%s: got %d, %v", name, code, err)
		}
		got := <-seen
		if fmt.Sprint(got.Extra) != fmt.Sprint(before.Extra) {
			t.Errorf("%s: the upstream saw %v", name, got.Extra)
		}
		if fmt.Sprint(m) != fmt.Sprint(before) {
			t.Errorf("%s: the query was changed", name)
		}
	}
}

// A context that ends does not wait for the upstream, and leaves nothing behind.
func TestCanceled(t *testing.T) {
	silent := newUpstream(t, mute)
	f := handler(t, "forward . "+silent.addr)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for silent.queries.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	start := time.Now()
	code, err := f.ServeDNS(ctx, &writer{}, question("example.org."))
	if code != dns.RcodeServerFailure || !errors.Is(err, context.Canceled) || time.Since(start) > 1500*time.Millisecond {
		t.Fatalf("got %d, %v after %v", code, err, time.Since(start))
	}
	if code, err = f.ServeDNS(ctx, &writer{}, question("example.org.")); !errors.Is(err, context.Canceled) {
		t.Fatalf("already canceled: got %d, %v", code, err)
	}
	if silent.queries.Load() != 1 || slotsInUse() != 0 {
		t.Fatalf("%d queries, %d slots taken", silent.queries.Load(), slotsInUse())
	}
}

// Many at once, some of them canceled: every slot comes back.
func TestManyAndCanceled(t *testing.T) {
	u := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if strings.HasPrefix(r.Question[0].Name, "slow") {
			time.Sleep(20 * time.Millisecond)
		}
		echo(w, r)
	})
	f := handler(t, "forward . "+u.addr)
	var group sync.WaitGroup
	for i := range 50 {
		group.Add(1)
		go func() {
			defer group.Done()
			for j := range 40 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+j%30)*time.Millisecond)
				name := fmt.Sprintf("q%d-%d.example.org.", i, j)
				if j%3 == 0 {
					name = "slow" + name
				}
				w := &writer{}
				code, err := f.ServeDNS(ctx, w, question(name))
				if err == nil && (code != 0 || w.msg == nil || w.msg.Question[0].Name != name) {
					t.Errorf("%s: got %d, %v", name, code, w.msg)
				}
				cancel()
			}
		}()
	}
	group.Wait()
	if slotsInUse() != 0 {
		t.Fatalf("%d slots are still taken", slotsInUse())
	}
	if info, err := f.current.Load().info(); err != nil || !bytes.Contains(info, []byte(`"in_flight":0`)) {
		t.Fatalf("the module still has queries: %s, %v", info, err)
	}
}

// Case 59, fact 9: metadata forward/upstream.
func TestMetadata(t *testing.T) {
	u := newUpstream(t, echo)
	f := handler(t, "forward . "+u.addr)
	ctx := metadata.ContextWithMetadata(context.Background())
	if code, err := f.ServeDNS(ctx, &writer{}, question("example.org.")); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	value := metadata.ValueFunc(ctx, "forward/upstream")
	if value == nil || value() != u.addr {
		t.Fatalf("no forward/upstream %s", u.addr)
	}
}

// Fact 11: an upstream that is written [::]:port is reached, and keeps its spelling.
func TestUnspecifiedAddress(t *testing.T) {
	u := newUpstreamAt(t, "[::]:0", echo)
	f := handler(t, "forward . "+u.addr)
	ctx := metadata.ContextWithMetadata(context.Background())
	for _, tcp := range []bool{false, true} {
		if code, err := f.ServeDNS(ctx, &writer{tcp: tcp}, question("example.org.")); code != 0 || err != nil {
			t.Fatalf("%s: got %d, %v", u.addr, code, err)
		}
	}
	if value := metadata.ValueFunc(ctx, "forward/upstream"); value() != u.addr || !strings.HasPrefix(u.addr, "[::]:") {
		t.Fatalf("spelled %s", value())
	}
	if text, err := metrics(); err != nil || !bytes.Contains(text, []byte(`"to":"`+u.addr+`"`)) {
		t.Errorf("no series with the label to as %s: %v", u.addr, err)
	}
}

// A span for each attempt, as a child of the query's (case 51).
func TestSpans(t *testing.T) {
	u := newUpstream(t, echo)
	f := handlerWith(t, "forward . 127.0.0.1:1 "+u.addr+" {\npolicy sequential\nmax_fails 0\n}", serviceTrace)
	tracer := mocktracer.New()
	parent := tracer.StartSpan("query")
	ctx := opentracing.ContextWithSpan(context.Background(), parent)
	if code, err := f.ServeDNS(ctx, &writer{}, question("example.org.")); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	spans := tracer.FinishedSpans()
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	for i, addr := range []string{"127.0.0.1:1", u.addr} {
		if spans[i].OperationName != "connect" || spans[i].Tag("peer.address") != addr || spans[i].ParentID != parent.(*mocktracer.MockSpan).SpanContext.SpanID {
			t.Errorf("span %d: %v", i, spans[i])
		}
	}
	// without a span nothing is kept
	if code, err := f.ServeDNS(context.Background(), &writer{}, question("example.org.")); code != 0 || err != nil || slotsInUse() != 0 {
		t.Fatal(code, err, slotsInUse())
	}
}

// Cases 54 and 76: what miekg/dns cannot unpack, and an answer to another question.
func TestUnpacked(t *testing.T) {
	m := question("example.org.")
	reply := new(dns.Msg).SetReply(m)
	reply.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 1)}}
	wire, _ := reply.Pack()
	const udp, tcp = true, false
	for _, row := range []struct {
		name   string
		udp    bool
		wire   []byte
		answer func(*dns.Msg) bool
	}{
		{"whole", udp, wire, func(m *dns.Msg) bool { return len(m.Answer) == 1 && !m.Truncated }},
		{"cut, UDP", udp, wire[:len(wire)-2], func(m *dns.Msg) bool { return len(m.Answer) == 0 && m.Truncated && m.Rcode == 0 }},
		{"cut, TCP", tcp, wire[:len(wire)-2], nil},
		{"garbage", udp, append(append([]byte(nil), wire[:12]...), 0x80), nil},
	} {
		got := new(dns.Msg)
		err := unpacked(got, got.Unpack(row.wire), row.udp)
		if (err == nil) != (row.answer != nil) {
			t.Errorf("%s: %v", row.name, err)
		}
		if row.answer != nil && (!row.answer(got) || !matches(got, m)) {
			t.Errorf("%s: got %v", row.name, got)
		}
	}
	for _, name := range []string{"exbmple.org.", "EXAMPLE.org."} {
		reply.Question[0].Name = name
		if matches(reply, m) != strings.EqualFold(name, "example.org.") {
			t.Errorf("%s matches: %v", name, matches(reply, m))
		}
	}
	reply.Response = false
	if matches(reply, reply) {
		t.Error("a query is taken for an answer")
	}
}

// Fact 12: a handler whose OnShutdown has been called serves again when it is asked, and is given back with its server.
func TestServesAfterShutdown(t *testing.T) {
	before := handles.Load()
	u := newUpstream(t, echo)
	f := handler(t, "forward . "+u.addr)
	f.stop()
	f.stop()
	if handles.Load() != before {
		t.Fatal("stop gave nothing back")
	}
	for range 3 {
		if code, err := f.ServeDNS(context.Background(), &writer{}, question("example.org.")); code != 0 || err != nil {
			t.Fatal(code, err)
		}
	}
	if handles.Load() != before+1 {
		t.Fatalf("%d instances for one handler", handles.Load()-before)
	}
	if code, err := (&Forward{}).ServeDNS(context.Background(), &writer{}, question("example.org.")); code != dns.RcodeServerFailure || err != errNotStarted {
		t.Fatal(code, err)
	}
}

// stop lets what is in flight end.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	u := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) { <-release; echo(w, r) })
	f := handler(t, "forward . "+u.addr)
	var group sync.WaitGroup
	for range 20 {
		group.Add(1)
		go func() {
			defer group.Done()
			w := &writer{}
			if code, err := f.ServeDNS(context.Background(), w, question("example.org.")); code != 0 || err != nil {
				t.Error(code, err)
			}
		}()
	}
	eventually(t, "all are in flight", func() bool { return u.queries.Load() == 20 })
	stopped := make(chan struct{})
	go func() { f.stop(); close(stopped) }()
	close(release)
	group.Wait()
	<-stopped
}

var _ plugin.Handler = (*Forward)(nil)
