//go:build cgo && linux

package forward

/*
#include "bridge.h"
*/
import "C"

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A driver turns the loop that all instances share. Its goroutine sleeps in Go's own poller like those that read clients, so an upstream's answer
// costs no thread of the module's, no switch between threads and one call into C for all that came at once.
type driver struct {
	mu        sync.Mutex
	instances map[*C.struct_fwd_instance]struct{}
	turned    *C.struct_fwd_instance // any of them
	poller    *os.File               // nil when there is none
}

var loop = driver{instances: make(map[*C.struct_fwd_instance]struct{})}

// add has the loop turned at least until remove.
func (d *driver) add(handle *C.struct_fwd_instance) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.poller == nil {
		poller, err := watch(handle)
		if err != nil {
			return err
		}
		raw, err := poller.SyscallConn()
		if err != nil {
			poller.Close()
			return err
		}
		d.poller = poller
		go raw.Read(func(uintptr) bool { return !d.turn() })
	}
	d.instances[handle] = struct{}{}
	d.turned = handle
	return nil
}

// watch makes a file of the loop's descriptor that Go's poller knows and may close.
func watch(handle *C.struct_fwd_instance) (*os.File, error) {
	fd := int(C.bridge_poll_fd(handle))
	if fd < 0 {
		return nil, fmt.Errorf("poll_fd: %s", C.GoString(C.bridge_strerror(C.int32_t(fd))))
	}
	own, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return nil, fmt.Errorf("dup: %w", errno)
	}
	if err := syscall.SetNonblock(int(own), true); err != nil { // else the poller would not take it
		syscall.Close(int(own))
		return nil, err
	}
	poller := os.NewFile(own, "forward.so")
	if err := pollable(poller); err != nil {
		poller.Close()
		return nil, err
	}
	return poller, nil
}

// pollable tells whether Go's poller has taken the file, as it does unless the kernel refuses (fs.epoll.max_user_watches). Without it the goroutine
// would end at once, and no query.
func pollable(file *os.File) error {
	if err := file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("the module's loop cannot be polled: %w", err)
	}
	return nil
}

// turn does what is due, and wakes whose queries have ended. It returns false when no instance is left.
func (d *driver) turn() bool {
	d.mu.Lock()
	if d.turned == nil {
		d.mu.Unlock()
		return false
	}
	C.bridge_run(d.turned)
	d.mu.Unlock()
	wakeEnded()
	return true
}

// remove is called before an instance is destroyed.
func (d *driver) remove(handle *C.struct_fwd_instance) {
	d.mu.Lock()
	delete(d.instances, handle)
	if d.turned == handle {
		d.turned = nil
		for other := range d.instances {
			d.turned = other
			break
		}
	}
	var idle *os.File
	if d.turned == nil {
		idle, d.poller = d.poller, nil
	}
	d.mu.Unlock()
	if idle != nil {
		idle.Close() // ends the goroutine, and so must not wait for it with the mutex held
	}
}

// wakeEnded wakes the goroutines whose queries have ended, in the order in which they did. To be called after whatever may have ended some.
func wakeEnded() {
	newest := (*C.struct_bridge_slot)(atomic.SwapPointer((*unsafe.Pointer)(unsafe.Pointer(&C.bridge_ended)), nil))
	var oldest *C.struct_bridge_slot
	for newest != nil {
		newest, newest.next, oldest = newest.next, oldest, newest
	}
	for oldest != nil {
		next := oldest.next // the slot is its goroutine's as soon as that is woken
		slotOf(oldest).ended <- struct{}{}
		oldest = next
	}
}
