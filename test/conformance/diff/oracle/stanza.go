package main

import (
	"crypto/tls"
	"net"
	"reflect"
	"time"

	"github.com/coredns/coredns/plugin/forward"
	"github.com/coredns/coredns/plugin/pkg/proxy"
	"github.com/miekg/dns"
)

type to struct {
	Addr          string `json:"addr"`
	Transport     string `json:"transport"`
	TLSServerName string `json:"tls_servername"`
}

type healthCheck struct {
	Interval string `json:"interval"`
	NoRec    bool   `json:"no_rec"`
	Domain   string `json:"domain"`
}

type stanza struct {
	From               string      `json:"from"`
	To                 []to        `json:"to"`
	Except             []string    `json:"except"`
	ForceTCP           bool        `json:"force_tcp"`
	PreferUDP          bool        `json:"prefer_udp"`
	NextOnNodata       bool        `json:"next_on_nodata"`
	Failfast           bool        `json:"failfast_all_unhealthy_upstreams"`
	Expire             string      `json:"expire"`
	MaxAge             string      `json:"max_age"`
	ReadTimeout        string      `json:"read_timeout"`
	MaxIdleConns       int         `json:"max_idle_conns"`
	MaxFails           uint32      `json:"max_fails"`
	MaxConcurrent      int64       `json:"max_concurrent"`
	MaxConnectAttempts *uint32     `json:"max_connect_attempts"`
	HealthCheck        healthCheck `json:"health_check"`
	Policy             string      `json:"policy"`
	Next               []string    `json:"next"`
	Failover           []string    `json:"failover"`
	TLSCertificates    int         `json:"tls_certificates"`
	TLSRootCAs         bool        `json:"tls_root_cas"`
	TLSServerName      string      `json:"tls_servername"`
	DoHMethod          string      `json:"doh_method"`
	SourceAddress      *string     `json:"source_address"`
	Resolver           []string    `json:"resolver"`
}

// get is an unexported field of the forward plugin.
func get[T any](f any, name string) T {
	return field(reflect.ValueOf(f), name).Interface().(T)
}

func strings_(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func mnemonics(rcodes []int) []string {
	list := []string{}
	for _, rcode := range rcodes {
		list = append(list, dns.RcodeToString[rcode])
	}
	return list
}

func policy(f *forward.Forward) string {
	p := reflect.ValueOf(f).Elem().FieldByName("p").Elem()
	return map[string]string{"random": "random", "roundRobin": "round_robin", "sequential": "sequential"}[p.Elem().Type().Name()]
}

func upstreams(f *forward.Forward) []to {
	list := []to{}
	for _, p := range get[[]*proxy.Proxy](f, "proxies") {
		t := to{Addr: p.Addr(), Transport: get[string](p, "protocol")}
		if t.Transport == "tls" && get[string](f, "tlsServerName") == "" {
			t.TLSServerName = get[*tls.Config](p.GetTransport(), "tlsConfig").ServerName
		}
		list = append(list, t)
	}
	return list
}

func describe(f *forward.Forward) stanza {
	opts := get[proxy.Options](f, "opts")
	config := get[*tls.Config](f, "tlsConfig")
	s := stanza{
		From:          get[string](f, "from"),
		To:            upstreams(f),
		Except:        strings_(get[[]string](f, "ignored")),
		ForceTCP:      opts.ForceTCP,
		PreferUDP:     opts.PreferUDP,
		NextOnNodata:  get[bool](f, "nextOnNodata"),
		Failfast:      get[bool](f, "failfastUnhealthyUpstreams"),
		Expire:        get[time.Duration](f, "expire").String(),
		MaxAge:        get[time.Duration](f, "maxAge").String(),
		ReadTimeout:   get[time.Duration](f, "readTimeout").String(),
		MaxIdleConns:  get[int](f, "maxIdleConns"),
		MaxFails:      get[uint32](f, "maxfails"),
		MaxConcurrent: get[int64](f, "maxConcurrent"),
		HealthCheck: healthCheck{
			Interval: get[time.Duration](f, "hcInterval").String(),
			NoRec:    !opts.HCRecursionDesired,
			Domain:   opts.HCDomain,
		},
		Policy:          policy(f),
		Next:            mnemonics(get[[]int](f, "nextAlternateRcodes")),
		Failover:        mnemonics(get[[]int](f, "failoverRcodes")),
		TLSCertificates: len(config.Certificates),
		TLSRootCAs:      config.RootCAs != nil,
		TLSServerName:   get[string](f, "tlsServerName"),
		DoHMethod:       get[string](f, "dohMethod"),
		Resolver:        strings_(get[[]string](f, "resolver")),
	}
	if get[bool](f, "maxConnectAttemptsSet") {
		attempts := get[uint32](f, "maxConnectAttempts")
		s.MaxConnectAttempts = &attempts
	}
	if address := get[net.IP](f, "sourceAddress"); address != nil {
		text := address.String()
		s.SourceAddress = &text
	}
	return s
}
