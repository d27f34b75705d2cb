//go:build cgo && linux

package forward

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/dnstap"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/root"
	_ "github.com/coredns/coredns/plugin/whoami"

	tap "github.com/dnstap/golang-dnstap"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"
)

// Setup parses and checks only (fact 7), and leaves nothing when it fails.
func TestSetup(t *testing.T) {
	handlesBefore, threads := handles.Load(), countOf(t, "/proc/self/task")
	for corefile, want := range map[string]string{
		"forward . 192.0.2.1":                         "",
		"forward":                                     "plugin/forward: Testfile:1 - Error during parsing: Wrong argument count or unexpected line ending after 'forward'",
		"forward . 192.0.2.1 {\n\nfoo\n}":             "plugin/forward: Testfile:3 - Error during parsing: unknown property 'foo'",
		"forward . 192.0.2.1 {\nmax_fails -4\n}":      `plugin/forward: strconv.ParseUint: parsing "-4": invalid syntax`,
		"forward . 192.0.2.1 {\ntls a b c d\n}":       "plugin/forward: Testfile:2 - Error during parsing: Wrong argument count or unexpected line ending after 'd'",
		"forward . 192.0.2.1\nforward . 1.1.1.1 {\nx": "plugin/forward: Testfile:3 - Error during parsing: unknown property 'x'",
	} {
		err := setup(caddy.NewTestController("dns", corefile))
		if (err == nil) != (want == "") || (err != nil && err.Error() != want) {
			t.Errorf("%q: got %v", corefile, err)
		}
	}
	if handles.Load() != handlesBefore {
		t.Errorf("setup made %d instances", handles.Load()-handlesBefore)
	}
	if after := countOf(t, "/proc/self/task"); after > threads+2 { // Go starts one when a call into C takes long
		t.Errorf("%d threads before, %d after", threads, after)
	}
}

// Files of tls are relative to root (case 27).
func TestRoot(t *testing.T) {
	port := freePort(t)
	corefile := ".:" + port + " {\nroot /nowhere\nforward . 192.0.2.1 {\ntls ca.pem\n}\n}"
	i, err := caddy.Start(input(corefile, port))
	if err == nil {
		end(i)
	}
	if err == nil || !strings.Contains(err.Error(), "/nowhere/ca.pem") {
		t.Fatalf("got %v", err)
	}
}

// A whole CoreDNS, UDP and TCP; with forward in the chain CH queries are forwarded (fact 2).
func TestServer(t *testing.T) {
	u := newUpstream(t, echo)
	_, addr := server(t, ".:%s {\nbind 127.0.0.1\nerrors\ncache\nforward . "+u.addr+"\n}")
	for _, network := range []string{"udp", "tcp"} {
		for range 2 { // the second comes from the cache
			if reply := ask(t, network, addr, question(network+".example.org.")); len(reply.Answer) != 1 {
				t.Fatalf("%s: %v", network, reply)
			}
		}
	}
	if u.queries.Load() != 2 {
		t.Errorf("%d queries for 2 names", u.queries.Load())
	}
	chaos := question("version.bind.")
	chaos.Question[0] = dns.Question{Name: "version.bind.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
	if reply := ask(t, "udp", addr, chaos); reply.Rcode != dns.RcodeSuccess || u.queries.Load() != 3 {
		t.Errorf("CH: %v", reply)
	}
}

// Fact 7: an instance that is started and then thrown away (a listen error comes after OnStartup) is given back, without OnShutdown.
func TestFailedReloads(t *testing.T) {
	u := newUpstream(t, echo)
	taken, streams := listenBoth(t, "127.0.0.1:0")
	defer taken.Close()
	defer streams.Close()
	_, busy, _ := net.SplitHostPort(taken.LocalAddr().String())
	good := ".:%s {\nbind 127.0.0.1\nforward . " + u.addr + "\n}\n"
	i, addr := server(t, good)
	ask(t, "udp", addr, question("before.example.org."))
	eventually(t, "instances of other tests are gone", func() bool { return handles.Load() <= 2 })
	fds, threads, goroutines := countOf(t, "/proc/self/fd"), countOf(t, "/proc/self/task"), runtime.NumGoroutine()
	_, port, _ := net.SplitHostPort(addr)
	for n := range 60 {
		// a port of its own for the first server, one that is taken for the second
		again, err := i.Restart(input(good+".:"+busy+" {\nbind 127.0.0.1\nforward . "+u.addr+"\n}\n", port))
		if err == nil {
			t.Fatalf("reload %d did not fail", n)
		}
		i = again
	}
	ask(t, "udp", addr, question("after.example.org."))
	// caddy's list of instances keeps the last one that it took out
	eventually(t, "118 of the 120 instances are given back", func() bool { return handles.Load() <= 3 })
	eventually(t, "descriptors, threads and goroutines are as before", func() bool {
		return countOf(t, "/proc/self/fd") <= fds+8 && countOf(t, "/proc/self/task") <= threads+8 && runtime.NumGoroutine() <= goroutines+70
	})
}

// Fact 7: embedders call only Stop.
func TestStopOnly(t *testing.T) {
	u := newUpstream(t, echo)
	runtime.GC()
	before := handles.Load()
	for range 10 {
		port := freePort(t)
		i, err := caddy.Start(input(".:%s {\nbind 127.0.0.1\nforward . "+u.addr+"\n}", port))
		if err != nil {
			t.Fatal(err)
		}
		for _, network := range []string{"udp", "tcp"} { // a listener that has not begun is not stopped (fact 12)
			ask(t, network, "127.0.0.1:"+port, question("example.org."))
		}
		i.Stop()
	}
	// caddy's list of instances keeps the last one that it took out
	eventually(t, "9 of the 10 instances are given back", func() bool { return handles.Load() <= before+1 })
}

// Fact 8: one set of series for all instances, from first use on; totals survive a reload.
func TestMetrics(t *testing.T) {
	u := newUpstream(t, echo)
	metricsAddr := "127.0.0.1:" + freePort(t)
	corefile := ".:%s {\nbind 127.0.0.1\nprometheus " + metricsAddr + "\nforward . " + u.addr + "\n}\nother.test:%s {\nbind 127.0.0.1\nforward . " + u.addr + "\n}\n"
	i, addr := server(t, corefile)
	_, port, _ := net.SplitHostPort(addr)
	count := func() string {
		reply, err := http.Get("http://" + metricsAddr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		text, err := io.ReadAll(reply.Body)
		if err != nil || reply.StatusCode != http.StatusOK {
			t.Fatalf("%v %s: %s", err, reply.Status, text)
		}
		series := fmt.Sprintf(`coredns_proxy_request_duration_seconds_count{proxy_name="forward",rcode="NOERROR",to=%q} `, u.addr)
		if _, rest, found := strings.Cut(string(text), series); found {
			value, _, _ := strings.Cut(rest, "\n")
			return value
		}
		return "none"
	}
	if got := count(); got != "none" {
		t.Fatalf("before the first query: %s", got)
	}
	ask(t, "udp", addr, question("example.org."))
	ask(t, "udp", addr, question("other.test."))
	for range 3 {
		if got := count(); got != "2" {
			t.Fatalf("after two queries: %s", got)
		}
		again, err := i.Restart(input(corefile, port))
		if err != nil {
			t.Fatal(err)
		}
		i = again
	}
	end(i)
}

// Case 82: each dnstap of the block gets both messages of a forwarded query, with the two ends of the upstream's socket.
func TestDnstap(t *testing.T) {
	u := newUpstream(t, echo)
	var inputs [2]chan []byte
	var lines strings.Builder
	for n := range inputs {
		path := filepath.Join(t.TempDir(), "tap")
		socket, err := tap.NewFrameStreamSockInputFromPath(path)
		if err != nil {
			t.Fatal(err)
		}
		inputs[n] = make(chan []byte, 100)
		go socket.ReadInto(inputs[n])
		fmt.Fprintf(&lines, "dnstap %s full\n", path)
	}
	_, addr := server(t, ".:%s {\nbind 127.0.0.1\n"+lines.String()+"forward . "+u.addr+"\n}")
	for _, network := range []string{"udp", "tcp"} {
		asked := question(network + ".example.org.")
		ask(t, network, addr, asked)
		for n, frames := range inputs {
			var query, response *tap.Message
			for query == nil || response == nil {
				select {
				case frame := <-frames:
					message := new(tap.Dnstap)
					if err := proto.Unmarshal(frame, message); err != nil {
						t.Fatal(err)
					}
					switch message.Message.GetType() {
					case tap.Message_FORWARDER_QUERY:
						query = message.Message
					case tap.Message_FORWARDER_RESPONSE:
						response = message.Message
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("%s, dnstap %d: query %v, response %v", network, n, query, response)
				}
			}
			checkTap(t, u, network, asked, query, response)
		}
	}
}

func checkTap(t *testing.T, u *upstream, network string, asked *dns.Msg, query, response *tap.Message) {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range []*tap.Message{query, response} {
		from := net.JoinHostPort(net.IP(m.QueryAddress).String(), fmt.Sprint(m.GetQueryPort()))
		to := net.JoinHostPort(net.IP(m.ResponseAddress).String(), fmt.Sprint(m.GetResponsePort()))
		if u.ports[from] == 0 || to != u.addr || !strings.EqualFold(m.GetSocketProtocol().String(), network) {
			t.Errorf("%s: %v from %s to %s over %v", network, m.GetType(), from, to, m.GetSocketProtocol())
		}
	}
	var sent, got dns.Msg
	if sent.Unpack(query.QueryMessage) != nil || sent.Id != asked.Id || got.Unpack(response.ResponseMessage) != nil || got.Id != asked.Id || len(got.Answer) != 1 {
		t.Errorf("%s: query %v, response %v", network, &sent, &got)
	}
}

// The fuzz corpus through ServeDNS, as queries and as answers: nothing panics, nothing stays behind.
func TestCorpus(t *testing.T) {
	dir := "../../../test/fuzz/corpus"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("the package is used without the project around it")
	}
	var answers, queries [][]byte
	for name, list := range map[string]*[][]byte{"answer": &answers, "query": &queries} {
		files, _ := filepath.Glob(filepath.Join(dir, name, "*"))
		if len(files) == 0 {
			t.Fatalf("no files in %s/%s", dir, name)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			*list = append(*list, text)
		}
	}
	u := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		text := answers[int(r.Id)%len(answers)]
		if n := 1 + int(text[0]); n < len(text) && len(text)-n >= 2 {
			text = append([]byte{byte(r.Id >> 8), byte(r.Id)}, text[n+2:]...)
		}
		w.Write(text)
	})
	f := handler(t, "forward . "+u.addr+" {\nread_timeout 20ms\nmax_connect_attempts 1\nmax_fails 0\n}")
	f.Next = &following{}
	var group sync.WaitGroup
	serve := func(m *dns.Msg) {
		group.Add(1)
		go func() {
			defer group.Done()
			f.ServeDNS(t.Context(), &writer{tcp: m.Id%2 == 0}, m)
		}()
	}
	for _, text := range append(queries, answers...) {
		m := new(dns.Msg)
		if m.Unpack(text) == nil && len(m.Question) > 0 {
			serve(m)
		}
	}
	for id := range 4 * len(answers) {
		m := question("www.example.org.")
		m.Id = uint16(id)
		serve(m)
	}
	group.Wait()
	if slotsInUse() != 0 {
		t.Fatalf("%d slots are still taken", slotsInUse())
	}
}

// What Go's poller has not taken is an error, and not a driver that ends in silence.
func TestPollable(t *testing.T) {
	plain, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if pollable(plain) == nil {
		t.Error("a plain file can be polled")
	}
	f := handler(t, "forward . 127.0.0.1:1")
	poller, err := watch(f.current.Load().handle)
	if err != nil {
		t.Fatal(err)
	}
	poller.Close()
}
