//go:build cgo && linux

package forward

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"
	_ "github.com/coredns/coredns/core"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"
)

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		runProcess()
		return
	}
	caddy.Quiet = true
	dnsserver.Quiet = true
	if err := load(); err != nil {
		fmt.Fprintf(os.Stderr, "these tests need a forward.so: %v\n", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// An upstream answers over UDP and TCP on one port of 127.0.0.1 (or what it is given).
type upstream struct {
	addr    string
	queries atomic.Int64
	mu      sync.Mutex
	ports   map[string]int // clients' addresses and how often each asked
	servers [2]*dns.Server
}

func newUpstream(t *testing.T, answer func(w dns.ResponseWriter, r *dns.Msg)) *upstream {
	t.Helper()
	return newUpstreamAt(t, "127.0.0.1:0", answer)
}

func newUpstreamAt(t *testing.T, addr string, answer func(w dns.ResponseWriter, r *dns.Msg)) *upstream {
	t.Helper()
	packets, streams := listenBoth(t, addr)
	u := &upstream{addr: packets.LocalAddr().String(), ports: make(map[string]int)}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		u.queries.Add(1)
		u.mu.Lock()
		u.ports[w.RemoteAddr().String()]++
		u.mu.Unlock()
		answer(w, r)
	})
	u.servers[0] = &dns.Server{PacketConn: packets, Handler: handler}
	u.servers[1] = &dns.Server{Listener: streams, Handler: handler, MaxTCPQueries: -1}
	for _, server := range u.servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go server.ActivateAndServe()
		<-started
	}
	t.Cleanup(u.close)
	return u
}

// clients counts the addresses that have asked; over TCP, the connections.
func (u *upstream) clients() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.ports)
}

func (u *upstream) close() {
	for _, server := range u.servers {
		server.Shutdown()
	}
}

// listenBoth binds one port over UDP and TCP.
func listenBoth(t *testing.T, addr string) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		packets, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if streams, err := net.Listen("tcp", packets.LocalAddr().String()); err == nil {
			return packets, streams
		}
		packets.Close()
	}
	t.Fatal("no port is free over both UDP and TCP")
	return nil, nil
}

// freePort is a port that nobody has just now. CoreDNS on port 0 may share one with another instance (fact 12).
func freePort(t *testing.T) string {
	t.Helper()
	packets, streams := listenBoth(t, "127.0.0.1:0")
	defer packets.Close()
	defer streams.Close()
	_, port, _ := net.SplitHostPort(packets.LocalAddr().String())
	return port
}

// echo answers with one A record.
func echo(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: r.Question[0].Qclass, Ttl: 60},
		A: net.IPv4(192, 0, 2, 1)}}
	w.WriteMsg(m)
}

// mute never answers.
func mute(dns.ResponseWriter, *dns.Msg) {}

// rcode answers with nothing but an rcode.
func rcode(rc int) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetRcode(r, rc)
		w.WriteMsg(m)
	}
}

// handler makes a started Forward of the forward lines of a Corefile.
func handler(t *testing.T, corefile string) *Forward {
	t.Helper()
	return handlerWith(t, corefile, 0)
}

func handlerWith(t *testing.T, corefile string, services uint32) *Forward {
	t.Helper()
	f, err := parse(caddy.NewTestController("dns", corefile), "")
	if err != nil {
		t.Fatal(err)
	}
	f.services = services
	if err := f.run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.stop() })
	return f
}

// A writer remembers what was written.
type writer struct {
	tcp    bool
	msg    *dns.Msg
	msgs   int
	writes int
}

func (w *writer) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53} }
func (w *writer) RemoteAddr() net.Addr {
	if w.tcp {
		return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40212}
	}
	return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40212}
}
func (w *writer) WriteMsg(m *dns.Msg) error   { w.msg, w.msgs = m, w.msgs+1; return nil }
func (w *writer) Write(b []byte) (int, error) { w.writes++; return len(b), nil }
func (w *writer) Close() error                { return nil }
func (w *writer) TsigStatus() error           { return nil }
func (w *writer) TsigTimersOnly(bool)         {}
func (w *writer) Hijack()                     {}

func question(name string) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, dns.TypeA)
}

// server starts CoreDNS. The Corefile's %s is its port.
func server(t *testing.T, corefile string) (*caddy.Instance, string) {
	t.Helper()
	port := freePort(t)
	i, err := caddy.Start(input(corefile, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(i) })
	return i, "127.0.0.1:" + port
}

func input(corefile, port string) caddy.Input {
	return caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(strings.ReplaceAll(corefile, "%s", port)), ServerTypeName: "dns"}
}

// end stops an instance, callbacks included.
func end(i *caddy.Instance) {
	i.ShutdownCallbacks()
	i.Stop()
}

func ask(t *testing.T, network, addr string, m *dns.Msg) *dns.Msg {
	t.Helper()
	client := dns.Client{Net: network, Timeout: 10 * time.Second}
	reply, _, err := client.Exchange(m, addr)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// eventually waits for something that comes about on its own.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		runtime.GC()
	}
}

func countOf(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
