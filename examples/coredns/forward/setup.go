//go:build cgo && linux

package forward

import (
	"encoding/json"
	"maps"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/dnstap"
)

func init() {
	plugin.Register("forward", setup)
}

// setup reads all forward lines of a server block and checks them. Threads and sockets begin in OnStartup.
func setup(c *caddy.Controller) error {
	if err := load(); err != nil {
		return prefixed(err)
	}
	config := dnsserver.GetConfig(c)
	f, err := parse(c, config.Root)
	if err != nil {
		return prefixed(err)
	}
	registerMetrics()
	config.AddPlugin(func(next plugin.Handler) plugin.Handler {
		f.Next = next
		return f
	})
	c.OnStartup(func() error { return f.start(config) })
	c.OnShutdown(f.stop)
	return nil
}

// parse makes a handler of the tokens.
func parse(c *caddy.Controller, root string) (*Forward, error) {
	text, err := corefileToJSON(c, root)
	warn(text)
	if err != nil {
		return nil, err
	}
	if text, err = adapt(text); err != nil {
		return nil, err
	}
	if err := check(text); err != nil {
		return nil, err
	}
	return &Forward{config: text}, nil
}

// driven has the instances of the process share one loop, which driver.go turns.
var driven = map[string]json.RawMessage{"io_threads": json.RawMessage("0"), "engine": json.RawMessage(`"coredns"`)}

// warn logs the module's warnings, which are there with an error, too.
func warn(document []byte) {
	var members struct{ Warnings []string }
	_ = json.Unmarshal(document, &members) // what is no JSON has none
	for _, warning := range members.Warnings {
		log.Warning(warning)
	}
}

// adapt takes the warnings out of the configuration, and sets what is not for the Corefile to say.
func adapt(config []byte) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(config, &members); err != nil {
		return nil, err
	}
	delete(members, "warnings")
	maps.Copy(members, driven)
	return json.Marshal(members)
}

// start makes the instance; only now is it known which other plugins the server block has.
func (f *Forward) start(config *dnsserver.Config) error {
	if t, ok := config.Handler("dnstap").(*dnstap.Dnstap); ok {
		f.SetTapPlugin(t)
		f.services |= serviceTap
	}
	if config.Handler("trace") != nil {
		f.services |= serviceTrace
	}
	return f.run()
}

func (f *Forward) run() error {
	i, err := newInstance(f.config, f.services)
	if err != nil {
		return prefixed(err)
	}
	f.current.Store(i)
	return nil
}

// prefixed is plugin.Error, but for the module's errors that already read as CoreDNS prints them.
func prefixed(err error) error {
	if strings.HasPrefix(err.Error(), "plugin/forward: ") {
		return err
	}
	return plugin.Error("forward", err)
}

// SetTapPlugin adds a dnstap plugin, and those that follow it.
func (f *Forward) SetTapPlugin(t *dnstap.Dnstap) {
	f.taps = append(f.taps, t)
	if next, ok := t.Next.(*dnstap.Dnstap); ok {
		f.SetTapPlugin(next)
	}
}

func (f *Forward) stop() error {
	if i := f.current.Load(); i != nil {
		i.stop()
	}
	return nil
}
