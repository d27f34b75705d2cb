package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The whole output of a CoreDNS that refuses its Corefile is the stock one's, for forward's errors and for those around it (order of checks,
// other plugins' errors). The binaries are those of ./build, or of the folder that COREDNS_DIR names.
func TestErrorsAsStock(t *testing.T) {
	dir := os.Getenv("COREDNS_DIR")
	if dir == "" {
		dir = "../../build/coredns"
	}
	ours, stock := filepath.Join(dir, "coredns"), filepath.Join(dir, "coredns-stock")
	for _, path := range []string{ours, stock} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("no binaries to compare: %v (examples/coredns/build)", err)
		}
	}
	for _, lines := range []string{
		"forward", "forward .", "forward . {\n}", "forward . 192.0.2.1 {\nfoo\n}", "forward . 192.0.2.1 {\n\npolicy x\n}",
		"forward . 192.0.2.1 {\nmax_fails -4\n}", "forward . 192.0.2.1 {\nexpire 1\n}", "forward . quic://192.0.2.1",
		"forward . 192.0.2.1 {\nforce_tcp x\n}", "forward . 127.1", "forward . 192.0.2.1 {\ntls a b c d\n}", "forward . 192.0.2.1 {\ntls /nowhere\n}",
		"root /nowhere\nforward . 192.0.2.1 {\ntls ca.pem\n}", "forward . 192.0.2.1 {\nmax_age 5s\n}", "forward . 192.0.2.1 {\nnext foo\n}",
		"forward . 192.0.2.1 {\nfailover NOERROR\n}", "forward . 192.0.2.1 {\nresolver x\n}", "forward . 192.0.2.1 {\nsource_address x\n}",
		"forward . 192.0.2.1\n{\n}", "forward .. 192.0.2.1", "forward . /nowhere/resolv.conf", "forward . https://192.0.2.1/dns-query",
		"forward . tls://192.0.2.1%a {\ntls_servername b\n}", "forward . 192.0.2.1 {\nhealth_check -1s\n}",
		"forward . 192.0.2.1 {\nhealth_check 1s rec\n}", "forward . 192.0.2.1 {\nread_timeout 0s\n}", "forward . 192.0.2.1 {\ndoh_method PUT\n}",
		"forward . 192.0.2.1 {\nmax_concurrent -1\n}", "forward . 192.0.2.1\nforward . 192.0.2.2 {\nx\n}", "forward . \"\"",
		"forward . 192.0.2.1 {\nresolver 127.0.0.1:1\n}\nforward x.test no-such-name.invalid {\nresolver 127.0.0.1:1\n}",
		"forward . 192.0.2.1\nerratic {\ndrop x\n}", "cache x\nforward .", "forward . 192.0.2.1\nfoo", "log {\nx\n}\nforward .",
		"forward 10.0.0.0/15 192.0.2.1 {\nexpire 1\n}", // with the warning of the network
		"forward ." + strings.Repeat(" 192.0.2.1", 16), "import nowhere/*\nforward .",
	} {
		corefile := ".:0 {\n" + lines + "\n}\n"
		if got, want := refusal(t, ours, corefile), refusal(t, stock, corefile); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", corefile, got, want)
		}
	}
}

// refusal is what a binary prints about a Corefile, without the dates of log lines.
func refusal(t *testing.T, binary, corefile string) string {
	t.Helper()
	path, err := filepath.Abs(binary)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, path, "-conf", "Corefile", "-quiet")
	command.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(command.Dir, "Corefile"), []byte(corefile), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err == nil || ctx.Err() != nil {
		t.Errorf("%s: accepted by %s", corefile, binary)
	}
	// without dates, and without why a look-up failed: the stock one's text has a port that changes
	return regexp.MustCompile(`(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d |(no addresses found for "[^"]*"): .*`).ReplaceAllString(out.String(), "$1")
}
