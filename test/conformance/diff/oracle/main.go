// The oracle: what a real CoreDNS 1.14.7 makes of Corefiles.
//
// It links CoreDNS's own server type and forward plugin, so nothing of them is rewritten here; unexported fields are read by
// reflection. One request a line on stdin, one answer a line on stdout, both JSON:
//
//	{"file": "NAME", "text": "BASE64 OF THE COREFILE"}
//	{"error": "TEXT"}  or  {"servers": [...]} in the form of `fwd-resolver -validate -json`
//
// Instead of the names of a tls line's files, which CoreDNS does not keep, a stanza has `tls_certificates` (their number) and
// `tls_root_cas` (whether there are any).
//
// The only argument is the list of directives that count as known, in CoreDNS's order.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"reflect"
	"strings"
	"unsafe"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/dnstap"
	_ "github.com/coredns/coredns/plugin/errors"
	"github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/root"
)

type request struct {
	File string
	Text []byte
}

type server struct {
	Zones   []string `json:"zones"`
	Listen  []string `json:"listen"`
	Forward []stanza `json:"forward"`
}

type answer struct {
	Error   string   `json:"error,omitempty"`
	Servers []server `json:"servers,omitempty"`
}

// field is the value behind a pointer's or struct's field, exported or not.
func field(v reflect.Value, name string) reflect.Value {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	f := v.FieldByName(name)
	if !f.IsValid() {
		return f
	}
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}

// stanzas follows the chain of handlers and describes those that are forwards.
func stanzas(chain reflect.Value) []stanza {
	list := []stanza{}
	for chain.IsValid() && !chain.IsNil() {
		handler := chain.Interface()
		if f, ok := handler.(*forward.Forward); ok {
			list = append(list, describe(f))
		}
		chain = reflect.Indirect(reflect.ValueOf(handler)).FieldByName("Next")
	}
	return list
}

// chain is a block's handlers, as dnsserver.NewServer strings them together; it does not for a block that listens nowhere.
func chain(config *dnsserver.Config) reflect.Value {
	var stack plugin.Handler
	for i := len(config.Plugin) - 1; i >= 0; i-- {
		stack = config.Plugin[i](stack)
	}
	return reflect.ValueOf(&stack).Elem()
}

// servers groups the keys' configurations by server block.
func servers(context caddy.Context) []server {
	configs := field(reflect.ValueOf(context), "configs").Interface().([]*dnsserver.Config)
	list := []server{}
	var first any
	for _, config := range configs {
		block := field(reflect.ValueOf(config), "firstConfigInBlock").Interface()
		if block != first {
			first = block
			list = append(list, server{
				Zones:   []string{},
				Listen:  []string{},
				Forward: stanzas(chain(config)),
			})
		}
		last := &list[len(list)-1]
		last.Zones = append(last.Zones, config.Zone)
		for _, host := range config.ListenHosts {
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			listen := host + ":" + config.Port
			known := false
			for _, l := range last.Listen {
				known = known || l == listen
			}
			if !known {
				last.Listen = append(last.Listen, listen)
			}
		}
	}
	return list
}

func ask(q request) (a answer) {
	defer func() {
		if r := recover(); r != nil {
			a = answer{Error: fmt.Sprintf("panic: %v", r)}
		}
	}()
	instance := &caddy.Instance{Storage: map[any]any{}}
	field(reflect.ValueOf(instance), "serverType").SetString("dns")
	input := caddy.CaddyfileInput{Filepath: q.File, Contents: q.Text, ServerTypeName: "dns"}
	if err := caddy.ValidateAndExecuteDirectives(input, instance, false); err != nil {
		return answer{Error: err.Error()}
	}
	context := field(reflect.ValueOf(instance), "context").Interface().(caddy.Context)
	if _, err := context.MakeServers(); err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Servers: servers(context)}
}

func main() {
	dnsserver.Directives = strings.Split(os.Args[1], ",")
	log.SetOutput(io.Discard)
	in := bufio.NewReader(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var q request
		if err := json.Unmarshal(line, &q); err != nil {
			log.Fatal(err)
		}
		if err := encoder.Encode(ask(q)); err != nil {
			os.Exit(1)
		}
		if in.Buffered() == 0 {
			out.Flush()
		}
	}
}
