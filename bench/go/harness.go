// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// keyText gives "user-" and six digits, of whole words, as harness.hpp does.
func keyText(key uint32) string {
	var digits uint64
	for i := 0; i < 6; i++ {
		digits = digits<<8 | uint64("0123456789abcdefghijklmnopqrstuv"[key&31])
		key >>= 5
	}
	var text [16]byte
	binary.LittleEndian.PutUint64(text[:8], 0x2D72657375|digits<<40) // "user-"
	binary.LittleEndian.PutUint64(text[8:], digits>>24)
	return string(text[:11])
}

// ledger is what the jobs of each key have done; see harness.hpp. Loads and stores are atomic but not one step, so that
// jobs of a key that overlap miscount.
type ledger struct {
	keys, stride int
	counters     []uint32
}

var disorder uint32

func newLedger(keys, producers int) *ledger {
	stride := 1
	if producers > 1 {
		stride = (producers + 8) / 8 * 8
	}
	return &ledger{keys, stride, make([]uint32, keys*stride)}
}

func (l *ledger) of(key uint32) []uint32 {
	at := int(key) * l.stride
	return l.counters[at : at+l.stride]
}

func (l *ledger) slot(producer int) uint32 {
	if l.stride == 1 {
		return 0
	}
	return uint32(1 + producer)
}

func record(counters []uint32, slot, number uint32) {
	at := atomic.LoadUint32(&counters[slot])
	if at != number {
		atomic.AddUint32(&disorder, 1)
	}
	atomic.StoreUint32(&counters[slot], at+1)
	if slot != 0 {
		atomic.StoreUint32(&counters[0], atomic.LoadUint32(&counters[0])+1)
	}
}

func (l *ledger) ran() uint64 {
	sum := uint64(0)
	for key := 0; key < l.keys; key++ {
		sum += uint64(atomic.LoadUint32(&l.counters[key*l.stride]))
	}
	return sum
}

func (l *ledger) wait(expected []uint32, patience time.Duration) {
	for key, count := range expected {
		before := uint64(0)
		until := time.Now().Add(patience)
		for atomic.LoadUint32(&l.counters[key*l.stride]) < count {
			time.Sleep(20 * time.Microsecond)
			if time.Now().Before(until) {
				continue
			}
			now := l.ran()
			if now == before {
				return
			}
			before = now
			until = time.Now().Add(patience)
		}
	}
}

func cpuSeconds() float64 {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

func residentBytes() float64 {
	debug.FreeOSMemory()
	text, _ := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(string(fields[1]), 64)
	return pages * float64(os.Getpagesize())
}

func compute(steps uint64) uint64 {
	value := steps
	for i := uint64(0); i < steps; i++ {
		value = value*6364136223846793005 + 1442695040888963407
	}
	return value
}

var sink, stepsOfAMicrosecond uint64

func calibrate() {
	const many = 100000
	best := time.Duration(1<<63 - 1)
	for trial := 0; trial < 20; trial++ {
		begin := time.Now()
		atomic.StoreUint64(&sink, compute(many))
		if took := time.Since(begin); took < best {
			best = took
		}
	}
	stepsOfAMicrosecond = uint64(1000 / float64(best.Nanoseconds()) * many)
}

func computeForAMicrosecond() {
	if compute(stepsOfAMicrosecond) == 0 {
		atomic.StoreUint64(&sink, 1)
	}
}
