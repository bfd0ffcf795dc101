// SPDX-License-Identifier: Apache-2.0

// The universe of a simulation: the content and names that clients use, and the
// operations that they carry out.

package bucket_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	simRepos = []string{"a", "b/c"}
	simTags  = []string{"t0", "t1", "t2"}
)

const indexType = "application/vnd.oci.image.index.v1+json"

// simContent is a blob or a manifest.
type simContent struct {
	digest  digest.Digest
	data    []byte
	subject int // of a manifest: the index of another, -1 for none
}

func newContent(data []byte, subject int) simContent {
	return simContent{digest.FromBytes(data), data, subject}
}

var simManifests = func() (all []simContent) {
	for i := range 4 {
		subject, doc := -1, fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","manifests":[],"annotations":{"n":"%d"}`, indexType, i)
		if i >= 2 {
			subject = i - 2
			doc += fmt.Sprintf(`,"artifactType":"application/vnd.example.%d","subject":{"mediaType":"%s","digest":"%s","size":%d}`, i, indexType, all[subject].digest, len(all[subject].data))
		}
		all = append(all, newContent([]byte(doc+"}"), subject))
	}
	return all
}()

// simBlobs contains one blob that is too large to be collected in memory.
var simBlobs = func() (all []simContent) {
	for i, size := range []int{2, 300, 5000, 70_000, 1_100_000} {
		data := bytes.Repeat([]byte{byte('a' + i)}, size)
		all = append(all, newContent(data, -1))
	}
	return all
}()

// manifestOf returns the index of a manifest, -1 for another digest.
func manifestOf(d string) int {
	return slices.IndexFunc(simManifests, func(m simContent) bool { return string(m.digest) == d })
}

// The kinds of operations and of events.
const (
	opPushBlob       = "push blob"
	opUpload         = "upload"
	opCancel         = "cancel upload"
	opMount          = "mount"
	opGetBlob        = "get blob"
	opHeadBlob       = "head blob"
	opDeleteBlob     = "delete blob"
	opPush           = "push manifest"
	opGetTag         = "get tag"
	opHeadTag        = "head tag"
	opGetManifest    = "get manifest"
	opHeadManifest   = "head manifest"
	opDeleteTag      = "delete tag"
	opDeleteManifest = "delete manifest"
	opTags           = "list tags"
	opReferrers      = "list referrers"
	opCatalog        = "list repositories"
	opGC             = "gc"
	opRequest        = "request" // a part of an upload: not checked by itself
)

var opWeights = []struct {
	kind   string
	weight int
}{
	{opPushBlob, 6}, {opUpload, 5}, {opCancel, 1}, {opMount, 3}, {opGetBlob, 5}, {opHeadBlob, 3}, {opDeleteBlob, 6},
	{opPush, 26}, {opGetTag, 14}, {opHeadTag, 4}, {opGetManifest, 5}, {opHeadManifest, 3},
	{opDeleteTag, 6}, {opDeleteManifest, 9}, {opTags, 4}, {opReferrers, 4}, {opCatalog, 1}, {opGC, 1},
}

// condition is the condition of a request: "", "absent" or "match".
type condition string

const (
	ifAbsent condition = "absent" // If-None-Match: *
	ifMatch  condition = "match"  // If-Match, with a digest
)

// simOp is an operation of a client.
type simOp struct {
	kind     string
	repo     string
	from     string   // of a mount
	tags     []string // of a push: none if it is by digest
	byDigest bool     // of a push
	manifest int
	blob     int
	cond     condition
	match    int           // the manifest to match; -1: the one that the client saw last
	limit    int           // of a list; 0: without
	last     string        // of a list
	think    time.Duration // before it
	burst    int           // the operations of a burst begin together
}

// simEvent is a crash or a partition, when a client begins an operation.
type simEvent struct {
	name       string
	class      faultClass
	client, op int
	delay      time.Duration
	replica    int
	duration   time.Duration
	hangs      bool
}

// simPlan is everything that is decided before a run.
type simPlan struct {
	seed    uint64
	ops     [][]simOp // by client
	dropped map[[2]int]bool
	events  []simEvent
	bursts  []time.Duration // when they begin
	weather *weather
}

const simReplicas = 3

// newPlan makes the plan of a seed.
func newPlan(seed uint64, clients, ops int) *simPlan {
	p := &simPlan{seed: seed, dropped: make(map[[2]int]bool), weather: newWeather(seed)}
	r := p.weather.stream("plan")
	weights := make([]int, len(opWeights))
	total := 0
	for i, w := range opWeights {
		weights[i] = w.weight * []int{0, 1, 2, 2, 2, 6}[r.IntN(6)]
		total += weights[i]
	}
	if total == 0 {
		weights[0], total = 1, 1
	}
	gaps := []time.Duration{time.Second, time.Minute, 12 * time.Minute, 35 * time.Minute, 65 * time.Minute, 130 * time.Minute}
	var at time.Duration
	for range 2 + r.IntN(6) {
		p.bursts = append(p.bursts, at)
		gap := gaps[r.IntN(len(gaps))]
		at += between(r, gap, 2*gap)
	}
	for c := range clients {
		n := ops / clients
		if c < ops%clients {
			n++
		}
		list := make([]simOp, n)
		for i := range list {
			list[i] = newOp(p.weather.stream(fmt.Sprint("op ", c, " ", i)), weights, total)
			list[i].burst = i * len(p.bursts) / n
		}
		p.ops = append(p.ops, list)
	}
	for _, f := range []faultClass{faultCrash, faultPartition} {
		if !p.weather.happens(f) || ops < clients {
			continue
		}
		for i := range 1 + r.IntN(4) {
			c := r.IntN(clients)
			e := simEvent{fmt.Sprint(f, " ", i), f, c, r.IntN(len(p.ops[c])), between(r, time.Millisecond, time.Second), r.IntN(simReplicas), between(r, time.Second, 2*time.Minute), r.IntN(2) == 0}
			p.events = append(p.events, e)
		}
	}
	return p
}

func newOp(r *rand.Rand, weights []int, total int) simOp {
	op := simOp{match: -1, repo: simRepos[0], from: simRepos[1], think: between(r, time.Millisecond, 3*time.Second)}
	if r.IntN(4) == 0 {
		op.repo, op.from = op.from, op.repo
	}
	k := r.IntN(total)
	for i, w := range weights {
		if k < w {
			op.kind = opWeights[i].kind
			break
		}
		k -= w
	}
	op.manifest = r.IntN(len(simManifests))
	op.blob = r.IntN(len(simBlobs) - 1)
	if r.IntN(15) == 0 {
		op.blob = len(simBlobs) - 1
	}
	op.tags = []string{simTags[r.IntN(len(simTags))]}
	if r.IntN(3) == 0 {
		op.match = r.IntN(len(simManifests))
	}
	switch op.kind {
	case opGetTag, opHeadTag, opDeleteTag, opPush:
	default:
		op.tags = nil
	}
	switch op.kind {
	case opPush:
		op.cond = []condition{"", "", ifAbsent, ifMatch}[r.IntN(4)]
		switch r.IntN(5) {
		case 0:
			op.tags, op.byDigest = nil, true
		case 1:
			op.tags, op.byDigest = slices.Clone(simTags), true
			i := r.IntN(2 * len(simTags)) // often two, sometimes all
			if i < len(simTags) {
				op.tags = slices.Delete(op.tags, i, i+1)
			}
		}
	case opDeleteTag:
		op.cond = []condition{"", ifMatch}[r.IntN(2)]
	case opTags, opReferrers, opCatalog:
		if r.IntN(2) == 0 {
			op.limit = 1 + r.IntN(3)
		}
		if r.IntN(4) == 0 && op.kind == opTags {
			op.last = simTags[r.IntN(len(simTags))]
		}
	}
	return op
}

func (op simOp) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s tags=%v m%d b%d %s", op.kind, op.repo, op.tags, op.manifest, op.blob, op.cond))
}
