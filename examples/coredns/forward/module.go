//go:build cgo && linux

// Package forward is CoreDNS's forward plugin with forward.so inside: the same directive, the same series and messages, another engine.
//
// A query goes down on its own goroutine in one call into C, which keeps nothing of Go's. Its end is put down in C's memory, and the goroutine that
// turns the module's loop (driver.go) wakes the one that waits.
package forward

/*
#cgo CFLAGS: -std=gnu11 -O2 -Wall -Wextra
#cgo LDFLAGS: -ldl
#include "bridge.h"
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"github.com/coredns/caddy"
)

// installed is where forward.so is looked for without FWD_MODULE, the first match wins.
var installed = []string{
	"/usr/local/lib/forward/forward.so",
	"/usr/local/lib/*-linux-gnu*/forward/forward.so",
	"/usr/local/lib64/forward/forward.so",
	"/usr/lib/forward/forward.so",
	"/usr/lib/*-linux-gnu*/forward/forward.so",
	"/usr/lib64/forward/forward.so",
}

var loading sync.Mutex

// load makes the functions of bridge.h usable.
func load() error {
	path, err := modulePath()
	if err != nil {
		return err
	}
	loading.Lock()
	defer loading.Unlock()
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if _, err := take(C.bridge_load(name)); err != nil {
		return fmt.Errorf("cannot use the module %s: %w", path, err)
	}
	return nil
}

func modulePath() (string, error) {
	if path := os.Getenv("FWD_MODULE"); path != "" {
		return filepath.Abs(path) // a bare name would be searched for in the linker's folders
	}
	for _, pattern := range installed {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("forward.so is not installed (looked for %s); name it in the environment variable FWD_MODULE",
		strings.Join(installed, ", "))
}

// take turns a text of C's into one of Go's, and its error into one.
func take(text C.struct_bridge_text) ([]byte, error) {
	defer C.free(unsafe.Pointer(text.data))
	defer C.free(unsafe.Pointer(text.error))
	data := C.GoBytes(unsafe.Pointer(text.data), C.int(text.len))
	if text.status >= 0 {
		return data, nil
	}
	if text.error == nil {
		return data, errors.New("out of memory")
	}
	return data, errors.New(C.GoString(text.error))
}

// corefileToJSON hands the tokens of all forward lines of a server block over, as caddy's lexer made them. With an error there may be warnings.
func corefileToJSON(c *caddy.Controller, root string) ([]byte, error) {
	var arena arena
	defer arena.free()
	var tokens []C.struct_fwd_token
	for c.Next() {
		tokens = append(tokens, C.struct_fwd_token{
			struct_size: C.sizeof_struct_fwd_token,
			line:        C.uint32_t(c.Line()),
			text:        arena.text(c.Val()),
			text_len:    C.uint32_t(len(c.Val())),
			file:        arena.text(c.File()),
		})
	}
	array := (*C.struct_fwd_token)(arena.alloc(uintptr(len(tokens)) * C.sizeof_struct_fwd_token))
	copy(unsafe.Slice(array, len(tokens)), tokens)
	var dir *C.char
	if root != "" {
		dir = arena.text(root)
	}
	return take(C.bridge_corefile_to_json(array, C.uint32_t(len(tokens)), dir))
}

// arena is memory of C's that is freed together.
type arena []unsafe.Pointer

func (a *arena) alloc(size uintptr) unsafe.Pointer {
	p := C.malloc(C.size_t(max(size, 1))) // cgo's malloc never returns nil
	*a = append(*a, p)
	return p
}

func (a *arena) text(s string) *C.char {
	p := C.CString(s)
	*a = append(*a, unsafe.Pointer(p))
	return p
}

func (a *arena) free() {
	for _, p := range *a {
		C.free(p)
	}
}

// check validates a configuration without opening anything.
func check(config []byte) error {
	_, err := take(C.bridge_check((*C.char)(unsafe.Pointer(unsafe.SliceData(config))), C.uint64_t(len(config))))
	return err
}

// metrics returns all series of the process.
func metrics() ([]byte, error) {
	return take(C.bridge_metrics())
}
