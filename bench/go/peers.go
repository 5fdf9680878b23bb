// SPDX-License-Identifier: Apache-2.0

package main

import (
	"hash/maphash"
	"sync"
)

// pool is what a workload submits to.
type pool interface {
	submit(key string, job func())
}

// The design of the original package: a goroutine and a channel of 100 places for each key, for ever.
type goroutinePerKey struct {
	mutex sync.RWMutex
	lanes map[string]chan func()
}

func newGoroutinePerKey() *goroutinePerKey {
	return &goroutinePerKey{lanes: map[string]chan func(){}}
}

func (p *goroutinePerKey) submit(key string, job func()) {
	p.mutex.RLock()
	lane, found := p.lanes[key]
	p.mutex.RUnlock()
	if !found {
		p.mutex.Lock()
		if lane, found = p.lanes[key]; !found {
			lane = make(chan func(), 100)
			p.lanes[key] = lane
			go work(lane)
		}
		p.mutex.Unlock()
	}
	lane <- job
}

func work(lane chan func()) {
	for job := range lane {
		job()
	}
}

// The design of its successor: the key's hash says which of the goroutines runs its jobs. In order, but not exact.
type hashOntoGoroutines struct {
	seed  maphash.Seed
	lanes []chan func()
}

func newHashOntoGoroutines(workers int) *hashOntoGoroutines {
	p := &hashOntoGoroutines{seed: maphash.MakeSeed()}
	for i := 0; i < workers; i++ {
		lane := make(chan func(), 1<<20)
		p.lanes = append(p.lanes, lane)
		go work(lane)
	}
	return p
}

func (p *hashOntoGoroutines) submit(key string, job func()) {
	p.lanes[maphash.String(p.seed, key)%uint64(len(p.lanes))] <- job
}
