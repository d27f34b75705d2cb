//go:build cgo && linux

package forward

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"
)

// What an instance may want to hear of, at the price of a call into Go for each attempt.
const (
	serviceTap   uint32 = C.BRIDGE_TAP
	serviceTrace uint32 = C.BRIDGE_TRACE
)

// drainTime is how long OnShutdown waits for queries in flight: a query's own time, and then some.
const drainTime = 6 * time.Second

var errStopped = errors.New("the server is shutting down")

// handles counts the instances that the module holds for us.
var handles atomic.Int64

// An instance is a started fwd_instance. It ends by stop, or, where caddy throws it away without a word (a failed reload, an embedder that calls
// Stop only), by the garbage collector.
type instance struct {
	handle  *C.struct_fwd_instance
	users   atomic.Int64 // goroutines that may use handle
	stopped atomic.Bool
	cleanup runtime.Cleanup
}

// newInstance creates and starts.
func newInstance(config []byte, services uint32) (*instance, error) {
	i := &instance{}
	text := (*C.char)(unsafe.Pointer(unsafe.SliceData(config)))
	if _, err := take(C.bridge_create(text, C.uint64_t(len(config)), C.uint32_t(services), &i.handle)); err != nil {
		return nil, err
	}
	handles.Add(1)
	i.cleanup = runtime.AddCleanup(i, destroy, i.handle)
	if _, err := take(C.bridge_start(i.handle)); err != nil {
		i.cleanup.Stop()
		destroy(i.handle)
		return nil, err
	}
	if err := loop.add(i.handle); err != nil {
		i.cleanup.Stop()
		destroy(i.handle)
		return nil, err
	}
	return i, nil
}

func destroy(handle *C.struct_fwd_instance) {
	loop.remove(handle)
	C.bridge_destroy(handle)
	wakeEnded()
	handles.Add(-1)
}

// enter makes sure that the handle lives until leave.
func (i *instance) enter() bool {
	i.users.Add(1)
	if i.stopped.Load() {
		i.leave()
		return false
	}
	return true
}

func (i *instance) leave() {
	i.users.Add(-1)
}

// stop lets what is in flight end, then gives everything back. Once is enough.
func (i *instance) stop() {
	if !i.stopped.CompareAndSwap(false, true) {
		return
	}
	for end := time.Now().Add(drainTime); i.users.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	C.bridge_stop(i.handle, 0)
	wakeEnded()
	for i.users.Load() > 0 { // their queries have ended, so they leave as soon as they run
		time.Sleep(time.Millisecond)
	}
	i.cleanup.Stop()
	destroy(i.handle)
}

// info is the module's word about the instance, as JSON. As with match and serve, the caller has entered.
func (i *instance) info() ([]byte, error) {
	return take(C.bridge_info(i.handle))
}

// match tells whether a stanza takes the name.
func (i *instance) match(qname []byte) bool {
	return C.bridge_match(i.handle, (*C.uint8_t)(unsafe.SliceData(qname)), C.uint32_t(len(qname))) == 1
}

// serve hands a query to the module and waits for its end, which is in the slot. errStopped: it has not been taken, since stop came before it.
func (i *instance) serve(ctx context.Context, s *slot, flags uint32, wire []byte) error {
	status := C.bridge_serve(i.handle, s.c, C.uint32_t(flags), (*C.uint8_t)(unsafe.SliceData(wire)), C.uint32_t(len(wire)))
	if status == C.FWD_ERR_STATE {
		return errStopped
	}
	if status < 0 {
		return fmt.Errorf("serve: %s", C.GoString(C.bridge_strerror(status)))
	}
	if s.c.verdict == C.FWD_VERDICT_ACCEPTED {
		i.await(ctx, s)
	}
	return nil
}

// await waits for an accepted query.
func (i *instance) await(ctx context.Context, s *slot) {
	canceled := ctx.Done()
	if canceled == nil {
		<-s.ended
		return
	}
	select {
	case <-s.ended:
	case <-canceled:
		C.bridge_cancel(i.handle, s.c.handle) // NOTFOUND: it has just ended
		<-s.ended
	}
}
