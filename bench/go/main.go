// SPDX-License-Identifier: Apache-2.0

// The workloads of workloads.hpp over the designs of the original Go package and of its successor.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand"
	"os"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

type workload struct {
	producers, keys, jobs int
	keysCome              string
	sleep                 time.Duration
	quickKeys, quickJobs  int
	quickSleep            time.Duration
}

const ms = time.Millisecond

var workloads = map[string]workload{
	"hot1":         {1, 1, 5000000, "", 0, 1, 300000, 0},
	"spread":       {1, 10000, 5000000, "uniform", 0, 10000, 100000, 0},
	"many":         {1, 1000000, 5000000, "", 0, 20000, 100000, 0},
	"contended1":   {4, 1, 4000000, "", 0, 1, 200000, 0},
	"contended":    {4, 10000, 4000000, "zipf", 0, 10000, 100000, 0},
	"chain":        {1, 64, 5000000, "", 0, 64, 200000, 0},
	"idle":         {1, 1, 2000, "", 0, 1, 100, 0},
	"blocking":     {1, 1000, 1000, "", 100 * ms, 40, 40, 10 * ms},
	"memory":       {1, 1000000, 1000000, "", time.Second, 50000, 50000, time.Second},
	"churn":        {1, 5000000, 5000000, "", 0, 50000, 50000, 0},
	"head-of-line": {1, 64, 20000, "", 5 * ms, 64, 1000, 5 * ms},
	"work":         {1, 10000, 1000000, "uniform", 0, 10000, 30000, 0},
}

type result struct {
	Peer       string             `json:"peer"`
	Workload   string             `json:"workload"`
	Version    string             `json:"version"`
	Workers    int                `json:"workers"`
	Producers  int                `json:"producers"`
	Keys       int                `json:"keys"`
	Jobs       uint64             `json:"jobs"`
	Ran        uint64             `json:"ran"`
	OutOfOrder uint32             `json:"out_of_order"`
	Exact      bool               `json:"exact"`
	InOrder    bool               `json:"in_order"`
	Wall       float64            `json:"wall_s"`
	CPU        float64            `json:"cpu_s"`
	Metrics    map[string]float64 `json:"metrics"`
}

const patience = 10 * time.Second

var (
	what workload
	out  result
	p    pool

	begin     time.Time
	cpuBefore float64
)

func start() {
	cpuBefore = cpuSeconds()
	begin = time.Now()
}

func stop() float64 {
	out.Wall = time.Since(begin).Seconds()
	out.CPU = cpuSeconds() - cpuBefore
	return out.Wall
}

// drawKeys draws as harness.cpp does: uniformly, or by Zipf's law with s = 0.99.
func drawKeys() []uint32 {
	random := rand.New(rand.NewSource(42))
	drawn := make([]uint32, 1<<18)
	share := make([]float64, what.keys)
	sum := 0.0
	for key := range share {
		sum += 1 / math.Pow(float64(key+1), 0.99)
		share[key] = sum
	}
	for i := range drawn {
		if what.keysCome == "uniform" {
			drawn[i] = uint32(random.Intn(what.keys))
		} else {
			drawn[i] = uint32(sort.SearchFloat64s(share[:what.keys-1], random.Float64()*sum))
		}
	}
	return drawn
}

func produce(book *ledger, sent, drawn []uint32, producer int, computing bool) {
	slot := book.slot(producer)
	at := len(drawn) / what.producers * producer
	key := uint32(0)
	for i := 0; i < what.jobs/what.producers; i++ {
		if drawn != nil {
			key = drawn[at]
			if at++; at == len(drawn) {
				at = 0
			}
		}
		counters, number := book.of(key), sent[key]
		sent[key]++
		if computing {
			p.submit(keyText(key), func() {
				computeForAMicrosecond()
				record(counters, slot, number)
			})
		} else {
			p.submit(keyText(key), func() { record(counters, slot, number) })
		}
		if drawn == nil {
			if key++; key == uint32(what.keys) {
				key = 0
			}
		}
	}
}

func runThroughput(computing bool) {
	book := newLedger(what.keys, what.producers)
	var drawn []uint32
	if what.keysCome != "" {
		drawn = drawKeys()
	}
	sent := make([][]uint32, what.producers)
	for i := range sent {
		sent[i] = make([]uint32, what.keys)
	}
	start()
	var producers sync.WaitGroup
	for i := 1; i < what.producers; i++ {
		producers.Add(1)
		go func(i int) {
			produce(book, sent[i], drawn, i, computing)
			producers.Done()
		}(i)
	}
	produce(book, sent[0], drawn, 0, computing)
	producers.Wait()
	expected := append([]uint32(nil), sent[0]...)
	for _, more := range sent[1:] {
		for key, count := range more {
			expected[key] += count
		}
	}
	book.wait(expected, patience)
	wall := stop()
	out.Jobs = uint64(what.jobs / what.producers * what.producers)
	out.Ran = book.ran()
	out.Metrics["mjobs_s"] = float64(out.Jobs) / wall / 1e6
}

func runChain() {
	book := newLedger(what.keys, 1)
	each := uint32(what.jobs / what.keys)
	var next func(key, number uint32)
	next = func(key, number uint32) {
		p.submit(keyText(key), func() {
			record(book.of(key), 0, number)
			if number+1 < each {
				next(key, number+1)
			}
		})
	}
	expected := make([]uint32, what.keys)
	start()
	for key := range expected {
		expected[key] = each
		next(uint32(key), 0)
	}
	book.wait(expected, patience)
	wall := stop()
	out.Jobs = uint64(each) * uint64(what.keys)
	out.Ran = book.ran()
	out.Metrics["mjobs_s"] = float64(out.Jobs) / wall / 1e6
}

// sendTimed sends a job each period to these keys in turn, and measures from submit to start.
func sendTimed(first, keys int, period time.Duration) {
	book := newLedger(keys, 1)
	taken := make([]float64, what.jobs)
	expected := make([]uint32, keys)
	start()
	due := begin
	for i := 0; i < what.jobs; i++ {
		i := i
		expected[i%keys]++
		due = due.Add(period)
		time.Sleep(time.Until(due))
		sent := time.Now()
		p.submit(keyText(uint32(first+i%keys)), func() {
			taken[i] = float64(time.Since(sent).Nanoseconds()) / 1e3
			record(book.of(uint32(i%keys)), 0, uint32(i/keys))
		})
	}
	book.wait(expected, patience)
	stop()
	out.Jobs = uint64(what.jobs)
	out.Ran = book.ran()
	sort.Float64s(taken)
	for name, q := range map[string]float64{"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999} {
		out.Metrics[name] = taken[int(q*float64(len(taken)))]
	}
}

func runHeadOfLine() {
	var stopping, stopped uint32
	var sleep func()
	sleep = func() {
		time.Sleep(what.sleep)
		if atomic.LoadUint32(&stopping) == 1 {
			atomic.StoreUint32(&stopped, 1)
		} else {
			p.submit(keyText(0), sleep)
		}
	}
	p.submit(keyText(0), sleep)
	sendTimed(1, what.keys-1, 100*time.Microsecond)
	atomic.StoreUint32(&stopping, 1)
	for i := 0; i < 10000 && atomic.LoadUint32(&stopped) == 0; i++ {
		time.Sleep(ms)
	}
	if atomic.LoadUint32(&stopped) == 0 {
		out.Ran = 0
	}
}

// oneForEach submits a job to each key, and says what each has to have run in the end.
func oneForEach(book *ledger, sleep time.Duration) []uint32 {
	expected := make([]uint32, what.keys)
	for key := range expected {
		expected[key] = 1
		counters := book.of(uint32(key))
		p.submit(keyText(uint32(key)), func() {
			if sleep > 0 {
				time.Sleep(sleep)
			}
			record(counters, 0, 0)
		})
	}
	out.Jobs = uint64(what.keys)
	return expected
}

func runBlocking() {
	book := newLedger(what.keys, 1)
	start()
	book.wait(oneForEach(book, what.sleep), patience)
	out.Metrics["seconds"] = stop()
	out.Ran = book.ran()
}

// runMemory: goroutines cannot be held, so what is measured as pending are keys whose job may have run.
func runMemory() {
	book := newLedger(what.keys, 1)
	for i := range book.counters {
		book.counters[i] = 0
	}
	before := residentBytes()
	start()
	expected := oneForEach(book, 0)
	out.Metrics["pending_bytes"] = (residentBytes() - before) / float64(what.keys)
	book.wait(expected, patience)
	stop()
	time.Sleep(what.sleep)
	out.Metrics["left_bytes"] = (residentBytes() - before) / float64(what.keys)
	out.Ran = book.ran()
}

func wrong(text string) {
	fmt.Fprintln(os.Stderr, "bench: "+text)
	os.Exit(2)
}

func main() {
	peer := flag.String("peer", "go-original", "go-original or go-hash")
	name := flag.String("workload", "", "its name")
	quick := flag.Bool("quick", false, "fewer jobs")
	flag.Parse()
	known := false
	if what, known = workloads[*name]; !known {
		wrong("no such workload: " + *name)
	}
	if *quick {
		what.keys, what.jobs, what.sleep = what.quickKeys, what.quickJobs, what.quickSleep
	}
	const workers = 2
	runtime.GOMAXPROCS(workers) // producers included: they are goroutines, too
	switch *peer {
	case "go-original":
		// A key takes some 4 KB for ever.
		if *name == "churn" && what.keys > 1000000 {
			what.keys, what.jobs = 1000000, 1000000
		}
		p = newGoroutinePerKey()
	case "go-hash":
		p = newHashOntoGoroutines(workers)
	default:
		wrong("no such peer: " + *peer)
	}
	out = result{Peer: *peer, Workload: *name, Version: runtime.Version(), Workers: workers, Producers: what.producers, Keys: what.keys,
		Metrics: map[string]float64{}}
	switch *name {
	case "chain":
		runChain()
	case "idle":
		sendTimed(0, 1, ms)
	case "head-of-line":
		runHeadOfLine()
	case "blocking":
		runBlocking()
	case "memory":
		runMemory()
	case "work":
		calibrate()
		runThroughput(true)
	default:
		runThroughput(false)
	}
	out.OutOfOrder = atomic.LoadUint32(&disorder)
	out.Exact = out.Ran == out.Jobs
	out.InOrder = out.OutOfOrder == 0
	line, _ := json.Marshal(out)
	fmt.Println(string(line))
	if !out.Exact || !out.InOrder {
		os.Exit(1)
	}
}
