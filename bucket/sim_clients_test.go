// SPDX-License-Identifier: Apache-2.0

// The clients of a simulation.

package bucket_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// simClient carries out operations, one after another.
type simClient struct {
	*fleet
	n    int
	seen map[string]int // the manifest that a tag pointed at, by repository and tag
}

func (c *simClient) run() {
	for i, op := range c.plan.ops[c.n] {
		for _, e := range c.plan.events {
			if e.client == c.n && e.op == i {
				c.begin(e)
			}
		}
		if c.plan.dropped[[2]int{c.n, i}] {
			continue
		}
		name := fmt.Sprintf("c%d.%d", c.n, i)
		if wait := c.plan.bursts[op.burst] - time.Since(simStart); wait > 0 {
			time.Sleep(wait)
		}
		time.Sleep(op.think)
		c.do(&operation{simOp: op, simClient: c, name: name, random: c.stream(name)})
	}
}

// operation is an operation in progress.
type operation struct {
	simOp
	*simClient
	name     string
	random   *rand.Rand
	requests int
}

// newEvent returns the event of the next request.
func (o *operation) newEvent(kind string) *event {
	o.requests++
	return &event{
		name: fmt.Sprint(o.name, ".", o.requests), kind: kind, repo: o.repo, from: o.from, tags: o.tags,
		byDigest: o.byDigest, manifest: o.manifest, blob: o.blob, cond: o.cond, match: o.match, n: o.limit, last: o.last, found: -1,
	}
}

// anyReplica chooses a replica, one that is up if there is any: clients connect to
// another if they can't connect.
func (o *operation) anyReplica() *replica {
	k := o.random.IntN(len(o.replicas))
	for i := range o.replicas {
		r := o.replicas[(k+i)%len(o.replicas)]
		if h, _, _ := r.process(); h != nil {
			return r
		}
	}
	return o.replicas[k]
}

func (c *simClient) do(o *operation) {
	if o.match < 0 {
		o.match = 0
		if len(o.tags) > 0 {
			o.match = c.seen[o.repo+" "+o.tags[0]]
		}
	}
	switch o.kind {
	case opPushBlob:
		e := o.newEvent(opPushBlob)
		o.sendEvent(e, simRequest{method: "POST", uri: o.uploads() + "?digest=" + simBlobs[o.blob].digest.String(), body: simBlobs[o.blob].data}, 201)
	case opUpload:
		o.upload()
	case opCancel:
		o.cancelAny()
	case opMount:
		e := o.newEvent(opMount)
		resp := o.sendEvent(e, simRequest{method: "POST", uri: o.uploads() + "?mount=" + simBlobs[o.blob].digest.String() + "&from=" + url.QueryEscape(o.from)}, 201, 202)
		if resp.status == 202 {
			o.addSession(resp.header.Get("Location"))
		}
	case opGetBlob, opHeadBlob:
		o.get(o.newEvent(o.kind), "/blobs/"+simBlobs[o.blob].digest.String(), simBlobs[o.blob].data)
	case opDeleteBlob:
		o.sendEvent(o.newEvent(o.kind), simRequest{method: "DELETE", uri: "/v2/" + o.repo + "/blobs/" + simBlobs[o.blob].digest.String()}, 202, 404)
	case opPush:
		o.push()
	case opGetTag, opHeadTag:
		o.get(o.newEvent(o.kind), "/manifests/"+o.tags[0], nil)
	case opGetManifest, opHeadManifest:
		o.get(o.newEvent(o.kind), "/manifests/"+simManifests[o.manifest].digest.String(), simManifests[o.manifest].data)
	case opDeleteTag:
		o.sendEvent(o.newEvent(o.kind), simRequest{method: "DELETE", uri: "/v2/" + o.repo + "/manifests/" + o.tags[0], header: o.condition()}, 202, 404, 412)
	case opDeleteManifest:
		o.sendEvent(o.newEvent(o.kind), simRequest{method: "DELETE", uri: "/v2/" + o.repo + "/manifests/" + simManifests[o.manifest].digest.String()}, 202, 404)
	case opTags, opReferrers, opCatalog:
		o.list()
	case opGC:
		o.gc()
	}
}

func (o *operation) uploads() string { return "/v2/" + o.repo + "/blobs/uploads/" }

// condition returns the headers of the operation's condition.
func (o *operation) condition() http.Header {
	switch o.cond {
	case ifAbsent:
		return http.Header{"If-None-Match": {"*"}}
	case ifMatch:
		return http.Header{"If-Match": {`"` + simManifests[o.match].digest.String() + `"`}}
	}
	return make(http.Header)
}

// sendEvent sends a request to any replica, records the event, and checks that the
// status is an expected one.
func (o *operation) sendEvent(e *event, req simRequest, expected ...int) response {
	resp := o.send(e, o.anyReplica(), o.random, req)
	o.record(e)
	o.expect(e, resp, expected...)
	return resp
}

func (o *operation) expect(e *event, resp response, expected ...int) {
	if !e.unknown() && resp.status < 500 && !slices.Contains(expected, resp.status) {
		o.violate("status", e, "%s: %d %s", e, resp.status, resp.body)
	}
}

// get gets a manifest or a blob. want is nil if the content is not known.
func (o *operation) get(e *event, path string, want []byte) {
	req := simRequest{method: "GET", uri: "/v2/" + o.repo + path, want: want}
	if e.kind == opHeadBlob || e.kind == opHeadManifest || e.kind == opHeadTag {
		req.method, req.want = "HEAD", nil
	}
	resp := o.sendEvent(e, req, 200, 404)
	if resp.status != 200 {
		return
	}
	if n := resp.header.Get("Content-Length"); want != nil && n != strconv.Itoa(len(want)) {
		o.violate("bytes", e, "%s: Content-Length %s", e, n)
	}
	if want != nil {
		return
	}
	// By tag, the digest tells which manifest it is.
	if e.found = manifestOf(resp.header.Get("Docker-Content-Digest")); e.found < 0 {
		o.violate("bytes", e, "%s: unknown digest %s", e, resp.header.Get("Docker-Content-Digest"))
	} else if req.method == "GET" && string(resp.body) != string(simManifests[e.found].data) {
		o.violate("bytes", e, "%s: wrong content", e)
	}
	if len(e.tags) > 0 {
		o.seen[e.repo+" "+e.tags[0]] = e.found
	}
}

func (o *operation) push() {
	e, m := o.newEvent(opPush), simManifests[o.manifest]
	reference := m.digest.String()
	query := make(url.Values)
	if o.byDigest {
		for _, tag := range o.tags {
			query.Add("tag", tag)
		}
	} else {
		reference = o.tags[0]
	}
	uri := "/v2/" + o.repo + "/manifests/" + reference
	if len(query) > 0 {
		uri += "?" + query.Encode()
	}
	header := o.condition()
	header.Set("Content-Type", indexType)
	resp := o.sendEvent(e, simRequest{method: "PUT", uri: uri, header: header, body: m.data}, 201, 412)
	if resp.status != 201 {
		return
	}
	if d := resp.header.Get("Docker-Content-Digest"); d != m.digest.String() {
		o.violate("status", e, "%s: digest %s", e, d)
	}
	if m.subject >= 0 && resp.header.Get("OCI-Subject") == "" {
		o.violate("status", e, "%s: no OCI-Subject", e)
	}
	for _, tag := range o.tags {
		o.seen[o.repo+" "+tag] = o.manifest
	}
}

// list requests one page of a list.
func (o *operation) list() {
	e := o.newEvent(o.kind)
	query := make(url.Values)
	if o.limit > 0 {
		query.Set("n", strconv.Itoa(o.limit))
	}
	if o.last != "" {
		query.Set("last", o.last)
	}
	uri := "/v2/" + o.repo + "/tags/list"
	switch o.kind {
	case opReferrers:
		uri = "/v2/" + o.repo + "/referrers/" + simManifests[o.manifest].digest.String()
	case opCatalog:
		uri = "/v2/_catalog"
	}
	if len(query) > 0 {
		uri += "?" + query.Encode()
	}
	resp := o.send(e, o.anyReplica(), o.random, simRequest{method: "GET", uri: uri})
	o.record(e)
	o.expect(e, resp, 200, 404)
	if resp.status != 200 {
		return
	}
	var doc struct {
		Tags, Repositories []string
		Manifests          []struct{ Digest string }
	}
	if err := json.Unmarshal(resp.body, &doc); err != nil {
		o.violate("list", e, "%s: %v in %s", e, err, resp.body)
		return
	}
	e.names = append(append([]string{}, doc.Tags...), doc.Repositories...)
	for _, m := range doc.Manifests {
		e.names = append(e.names, m.Digest)
	}
	e.more = resp.header.Get("Link") != ""
	if !slices.IsSorted(e.names) || len(slices.Compact(slices.Clone(e.names))) != len(e.names) {
		o.violate("list", e, "%s: not in order", e)
	}
}

// gc collects garbage, as a client that is not patient.
func (o *operation) gc() {
	if o.target.gc == nil {
		return
	}
	r := o.anyReplica()
	h, _, store := r.process()
	if h == nil {
		return
	}
	e := o.newEvent(opGC)
	e.replica, e.start, e.from0 = h.name, o.tick(), time.Now()
	call := &caller{name: e.name}
	ctx, cancel := context.WithTimeout(withCaller(context.Background(), call), 10*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	o.handlers.Add(1)
	go func() {
		defer o.handlers.Done()
		done <- o.target.gc(ctx, store)
	}()
	select {
	case err := <-done:
		if err == nil {
			e.status = 200
		}
	case <-ctx.Done():
		time.Sleep(between(o.random, time.Microsecond, time.Millisecond))
	case <-h.crashed:
		time.Sleep(between(o.random, time.Microsecond, time.Millisecond))
	}
	e.end, e.to = o.tick(), time.Now()
	o.record(e)
}
