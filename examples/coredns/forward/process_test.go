//go:build cgo && linux

package forward

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/coredns/coremain"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// asProcess in the environment makes this test binary a CoreDNS, with CoreDNS's own main, flags and signals.
const asProcess = "FWD_TEST_AS_COREDNS"

// runProcess is the main of such a process. Beside CoreDNS's series it shows what the plugin holds of the module.
func runProcess() {
	for name, value := range map[string]func() float64{
		"test_instances": func() float64 { return float64(handles.Load()) },
		"test_queries":   func() float64 { return float64(slotsInUse()) },
	} {
		prometheus.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name}, value))
	}
	coremain.Run()
}

// A process is a CoreDNS of its own.
type process struct {
	addr, metrics string
	command       *exec.Cmd
	lines         chan string // of its output
}

// startProcess runs CoreDNS on lines for its only server block, and waits until it serves.
func startProcess(t *testing.T, lines string) *process {
	t.Helper()
	port := freePort(t)
	p := &process{addr: "127.0.0.1:" + port, metrics: "127.0.0.1:" + freePort(t)}
	conf := filepath.Join(t.TempDir(), "Corefile")
	text := fmt.Sprintf(".:%s {\nbind 127.0.0.1\nprometheus %s\n%s\n}\n", port, p.metrics, lines)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p.command = exec.Command(os.Args[0], "-conf", conf)
	p.command.Env = append(os.Environ(), asProcess+"=1")
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.command.Stderr = os.Stderr
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.command.ProcessState == nil {
			p.command.Process.Kill()
			p.command.Wait()
		}
	})
	p.lines = make(chan string, 1000)
	go func() {
		defer close(p.lines)
		for out := bufio.NewScanner(out); out.Scan(); {
			p.lines <- out.Text()
		}
	}()
	p.await(t, "CoreDNS-")
	return p
}

// await reads what the process prints up to a line with this text.
func (p *process) await(t *testing.T, text string) {
	t.Helper()
	if seen, found := p.read(text, 20*time.Second); !found {
		t.Fatalf("no line %q in %q", text, seen)
	}
}

func (p *process) read(text string, patience time.Duration) (seen []string, found bool) {
	end := time.After(patience)
	for {
		select {
		case line, more := <-p.lines:
			if strings.Contains(line, text) || !more {
				return seen, more
			}
			seen = append(seen, line)
		case <-end:
			return seen, false
		}
	}
}

// reload sends SIGUSR1 and waits for its end. CoreDNS listens to signals on a goroutine that may begin after it serves, so the first signal may be
// missed.
func (p *process) reload(t *testing.T) {
	t.Helper()
	eventually(t, "SIGUSR1 is heard", func() bool {
		if err := p.command.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		_, heard := p.read("SIGUSR1: Reloading", time.Second)
		return heard
	})
	p.await(t, "Reloading complete")
}

// end stops it as an init system does; its exit status has to be 0.
func (p *process) end(t *testing.T) {
	t.Helper()
	p.command.Process.Signal(syscall.SIGTERM)
	for range p.lines {
	}
	if err := p.command.Wait(); err != nil {
		t.Error(err)
	}
}

// gauges are values that /metrics shows, by name.
func (p *process) gauges(t *testing.T, names ...string) map[string]int {
	t.Helper()
	reply, err := http.Get("http://" + p.metrics + "/metrics")
	if err != nil {
		return nil // between two listeners
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil || reply.StatusCode != http.StatusOK {
		t.Fatalf("%v %s: %s", err, reply.Status, text)
	}
	found := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, wanted := range names {
			if number, err := strconv.ParseFloat(value, 64); name == wanted && err == nil {
				found[name] = int(number)
			}
		}
	}
	return found
}

// Traffic is queries of a few clients, each with one at a time, until it is stopped.
type traffic struct {
	asked, lost atomic.Int64
	stopping    atomic.Bool
	group       sync.WaitGroup
}

const clients = 4

func startTraffic(t *testing.T, addr string) *traffic {
	l := &traffic{}
	t.Cleanup(l.stop)
	for n := range clients {
		l.group.Add(1)
		go func() {
			defer l.group.Done()
			client := dns.Client{Timeout: 5 * time.Second}
			for i := 0; !l.stopping.Load(); i++ {
				reply, _, err := client.Exchange(question(fmt.Sprintf("q%d-%d.example.org.", n, i)), addr)
				l.asked.Add(1)
				if err != nil || reply.Rcode != dns.RcodeSuccess {
					l.lost.Add(1)
					t.Errorf("query %d-%d: %v, %v", n, i, err, reply)
					return
				}
			}
		}()
	}
	return l
}

func (l *traffic) stop() {
	l.stopping.Store(true)
	l.group.Wait()
}

// Case 96: SIGUSR1 reloads a CoreDNS process 50 times under load. Nothing is lost, warm connections are kept, and nothing stays behind: goroutines,
// descriptors, threads, instances, queries.
func TestReloads(t *testing.T) {
	u := newUpstream(t, echo)
	p := startProcess(t, "errors\nforward . "+u.addr+" {\nforce_tcp\n}")
	tasks := fmt.Sprintf("/proc/%d/task", p.command.Process.Pid)
	l := startTraffic(t, p.addr)
	reloads := func(count int) {
		for range count {
			before := l.asked.Load()
			p.reload(t)
			eventually(t, "queries between two reloads", func() bool { return l.asked.Load() >= before+20 })
		}
	}
	names := []string{"go_goroutines", "process_open_fds", "test_instances", "test_queries"}
	reloads(5)
	var before map[string]int
	eventually(t, "the series", func() bool { before = p.gauges(t, names...); return len(before) == len(names) })
	conns, threads := u.clients(), countOf(t, tasks)

	reloads(50)
	l.stop()
	t.Logf("%d queries, %d lost, %d upstream connections before and %d after 50 reloads", l.asked.Load(), l.lost.Load(), conns, u.clients())
	if opened := u.clients() - conns; opened > clients {
		t.Errorf("%d upstream connections were opened by 50 reloads: warm ones were not kept", opened)
	}
	var after map[string]int
	eventually(t, "one instance, no query", func() bool {
		after = p.gauges(t, names...)
		return len(after) == len(names) && after["test_instances"] == 1 && after["test_queries"] == 0
	})
	const room = 2 * clients // sockets and goroutines of queries, listeners that are just being replaced
	eventually(t, "goroutines, descriptors and threads are as before", func() bool {
		after = p.gauges(t, names...)
		return after["go_goroutines"] <= before["go_goroutines"]+room && after["process_open_fds"] <= before["process_open_fds"]+room &&
			countOf(t, tasks) <= threads+room
	})
	t.Logf("before %v, after %v; threads %d, %d", before, after, threads, countOf(t, tasks))
	p.end(t)
}
