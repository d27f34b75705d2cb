//go:build cgo && linux

package forward

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coredns/caddy"
)

func goTool(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	command := exec.Command("go", args...)
	command.Dir = ".."
	command.Env = append(os.Environ(), env...)
	out, err := command.CombinedOutput()
	return string(out), err
}

// Fact 1: go.mod raises nothing of CoreDNS's, and has no line that a consumer would ignore.
func TestGoMod(t *testing.T) {
	ours, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := goTool(t, nil, "list", "-m", "-f", "{{.Dir}}", "github.com/coredns/coredns")
	if err != nil {
		t.Fatal(dir)
	}
	theirs, err := os.ReadFile(filepath.Join(strings.TrimSpace(dir), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`(?m)^(replace|toolchain|exclude)`).Match(ours) {
		t.Error("go.mod has a replace, exclude or toolchain line")
	}
	required := regexp.MustCompile(`(?m)^\s*(?:require )?(\S+\.\S+/\S+|go) (v?[0-9]\S*)`)
	versions := make(map[string]string)
	for _, line := range required.FindAllStringSubmatch(string(theirs), -1) {
		versions[line[1]] = line[2]
	}
	for _, line := range required.FindAllStringSubmatch(string(ours), -1) {
		if want, found := versions[line[1]]; found && want != line[2] {
			t.Errorf("%s is %s, CoreDNS has %s", line[1], line[2], want)
		}
	}
}

// Fact 2: importing the package registers the plugin.
func TestRegistered(t *testing.T) {
	if _, err := caddy.DirectiveAction("dns", "forward"); err != nil {
		t.Fatal(err)
	}
	if name := (&Forward{}).Name(); name != "forward" {
		t.Fatalf("the handler is called %s", name)
	}
}

// Fact 3: neither the built-in plugin nor its proxies are linked, and all the other standard plugins are.
func TestLinked(t *testing.T) {
	out, err := goTool(t, []string{"CGO_ENABLED=1"}, "list", "-deps", ".")
	if err != nil {
		t.Fatal(out)
	}
	for _, path := range []string{"github.com/coredns/coredns/plugin/forward", "github.com/coredns/coredns/plugin/pkg/proxy"} {
		if strings.Contains(out, path+"\n") {
			t.Errorf("%s is linked", path)
		}
	}
	dir, _ := goTool(t, nil, "list", "-m", "-f", "{{.Dir}}", "github.com/coredns/coredns")
	plugins, err := os.ReadFile(filepath.Join(strings.TrimSpace(dir), "core/plugin/zplugin.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`_ "(.*)"`).FindAllStringSubmatch(string(plugins), -1) {
		if path := found[1]; path != "github.com/coredns/coredns/plugin/forward" && !strings.Contains(out, path+"\n") {
			t.Errorf("%s is not linked: go generate", path)
		}
	}
}

// Fact 4: without cgo the compiler says what to do.
func TestWithoutCgo(t *testing.T) {
	out, err := goTool(t, []string{"CGO_ENABLED=0"}, "build", "-o", os.DevNull, "./forward")
	if err == nil || !strings.Contains(out, "forward_needs_cgo_on_linux__build_with_CGO_ENABLED_1") {
		t.Fatalf("got %v: %s", err, out)
	}
}

// Fact 5: the package needs no file outside its folder, and its header is the project's.
func TestHeader(t *testing.T) {
	sources, _ := filepath.Glob("*.[ch]")
	for _, name := range sources {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, include := range regexp.MustCompile(`#include "(.*)"`).FindAllSubmatch(text, -1) {
			if bytes.ContainsAny(include[1], "/") {
				t.Errorf("%s includes %s", name, include[1])
			}
		}
	}
	original, err := os.ReadFile("../../../abi/include/forward/abi.h")
	if os.IsNotExist(err) {
		t.Skip("the package is used without the project around it")
	}
	ours, _ := os.ReadFile("abi.h")
	if !bytes.Equal(original, ours) {
		t.Error("abi.h is stale: abi/gen/regenerate")
	}
}

// Fact 6: FWD_MODULE is read in setup, and what is wrong with it is an error that names the file.
func TestModulePath(t *testing.T) {
	dir := t.TempDir()
	stub := func(name, source string) string {
		path := filepath.Join(dir, name)
		text := filepath.Join(dir, name+".c")
		os.WriteFile(text, []byte(source), 0o644)
		if out, err := exec.Command("cc", "-shared", "-fPIC", "-I", ".", "-o", path, text).CombinedOutput(); err != nil {
			t.Fatal(string(out))
		}
		return path
	}
	broken := filepath.Join(dir, "broken.so")
	os.WriteFile(broken, []byte("no library"), 0o644)
	for _, row := range []struct{ path, want string }{
		{filepath.Join(dir, "missing.so"), "No such file"},
		{broken, "broken.so"},
		{stub("none.so", "int x;"), "lacks fwd_module_entry"},
		{stub("other.so", "const void *fwd_module_entry(unsigned m) { return 0; }"), "does not implement ABI 1."},
		{stub("bare.so", `#include "abi.h"
static const void *get(const char *id) { return NULL; }
static const struct fwd_module module = {.struct_size = sizeof(module), .get_interface = get};
const struct fwd_module *fwd_module_entry(uint32_t m) { return &module; }`), "too old, it lacks fwd.forward/1"},
		{stub("old.so", `#include "abi.h"
static const struct fwd_forward forward = {.struct_size = offsetof(struct fwd_forward, corefile_to_json)};
static const void *get(const char *id) { return &forward; }
static const struct fwd_module module = {.struct_size = sizeof(module), .get_interface = get};
const struct fwd_module *fwd_module_entry(uint32_t m) { return &module; }`), "too old, it lacks corefile_to_json"},
	} {
		t.Setenv("FWD_MODULE", row.path)
		err := setup(caddy.NewTestController("dns", "forward . 192.0.2.1"))
		if err == nil || !strings.HasPrefix(err.Error(), "plugin/forward: cannot use the module "+row.path) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v", filepath.Base(row.path), err)
		}
	}
	t.Setenv("FWD_MODULE", "")
	found := installed
	installed = []string{filepath.Join(dir, "nothing.so")}
	defer func() { installed = found }()
	if err := setup(caddy.NewTestController("dns", "forward . 192.0.2.1")); err == nil || !strings.Contains(err.Error(), "is not installed") {
		t.Errorf("not installed: got %v", err)
	}
}
