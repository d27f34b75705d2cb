// CoreDNS with all its standard plugins, in which forward.so does the forwarding.
package main

import (
	"github.com/coredns/coredns/coremain"

	_ "example.org/fwd/examples/coredns/forward"
)

//go:generate go run plugins_generate.go

func main() {
	coremain.Run()
}
