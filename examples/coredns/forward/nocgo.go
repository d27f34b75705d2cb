//go:build !cgo || !linux

// Package forward loads forward.so, which takes cgo and Linux. CoreDNS's Makefile turns cgo off: build with CGO_ENABLED=1 make.
package forward

// The name that the compiler complains about is the message.
var _ = forward_needs_cgo_on_linux__build_with_CGO_ENABLED_1
