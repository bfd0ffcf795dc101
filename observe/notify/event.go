// SPDX-License-Identifier: Apache-2.0

// Events, and the formats in which they are sent.

package notify

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// The actions of events.
const (
	Push   = "push"   // of a blob, or of a manifest; an event for each of its tags
	Pull   = "pull"   // GET of a manifest or of a blob, from its first byte; not HEAD
	Mount  = "mount"  // of a blob
	Delete = "delete" // of a blob, a manifest or a tag
)

// Envelope is the body of a request in the format [Distribution].
type Envelope struct {
	Events []Event `json:"events"`
}

// Event is an event as distribution describes it.
type Event struct {
	ID        string    `json:"id"` // the same each time that the event is sent
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"`
	Target    Target    `json:"target"`
	Request   Request   `json:"request"`
	Actor     Actor     `json:"actor"`
	Source    Source    `json:"source"`
}

// Target is the content of an event. If a tag was deleted, it has no digest, and a
// deleted manifest or blob has neither media type nor size.
type Target struct {
	MediaType      string        `json:"mediaType"`
	Digest         digest.Digest `json:"digest"`
	Size           int64         `json:"size"`             // in bytes, 0 if it is not known
	Length         int64         `json:"length,omitempty"` // the same as Size
	Repository     string        `json:"repository,omitempty"`
	FromRepository string        `json:"fromRepository,omitempty"` // of a mount, if the client has named it
	URL            string        `json:"url,omitempty"`
	Tag            string        `json:"tag,omitempty"`
}

// Request is the request that has caused an event. Addr is host:port of the
// connection; ID is the request's header X-Request-Id or, without one, unique.
type Request struct {
	ID        string `json:"id"`
	Addr      string `json:"addr,omitempty"`
	Host      string `json:"host,omitempty"`
	Method    string `json:"method"`
	UserAgent string `json:"useragent"`
}

// Actor is the user who has sent the request, if middleware has reported one.
type Actor struct {
	Name string `json:"name,omitempty"`
}

// Source is the process that has sent the event. InstanceID changes when it restarts.
type Source struct {
	Addr       string `json:"addr,omitempty"`
	InstanceID string `json:"instanceID,omitempty"`
}

// actionOf returns the action of a request, "" if it has none.
func actionOf(e *registry.Event) string {
	switch e.Request.Op {
	case registry.OpManifestGet, registry.OpBlobGet:
		switch e.Status {
		case http.StatusOK, http.StatusTemporaryRedirect: // to the bucket
			return Pull
		case http.StatusPartialContent:
			// A client that resumes, or pulls in pieces, makes one event.
			if strings.HasPrefix(e.HTTP.Header.Get("Range"), "bytes=0-") {
				return Pull
			}
		}
	case registry.OpBlobPush, registry.OpUploadPut, registry.OpManifestPut:
		if e.Changed {
			return Push
		}
	case registry.OpBlobMount:
		if e.Changed {
			return Mount
		}
	case registry.OpBlobDelete, registry.OpManifestDelete:
		if e.Changed {
			return Delete
		}
	}
	return ""
}

// Maximum lengths of strings that clients choose: the queue holds many events.
const (
	maxText = 512
	maxID   = 128
)

// clip returns s, or a copy of its beginning.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.Clone(s[:limit])
}

// newEvent returns the event of a request, without what complete adds.
func newEvent(e *registry.Event, action string) Event {
	h := e.HTTP
	event := Event{
		Timestamp: e.Time.Add(e.Duration),
		Action:    action,
		Target: Target{
			MediaType:      e.MediaType,
			Repository:     e.Request.Repo,
			FromRepository: e.Request.From,
			Tag:            e.Request.Tag,
		},
		Request: Request{
			ID:        clip(h.Header.Get("X-Request-Id"), maxID),
			Addr:      h.RemoteAddr,
			Host:      clip(h.Host, maxText),
			Method:    h.Method,
			UserAgent: clip(h.UserAgent(), maxText),
		},
		Actor: Actor{clip(e.User, maxText)},
	}
	if action != Delete || e.Request.Tag == "" {
		event.Target.Digest = e.Digest
	}
	switch {
	case action == Delete:
		event.Target.MediaType = ""
	case event.Target.MediaType == "" && !isManifest(e.Request.Op):
		event.Target.MediaType = "application/octet-stream"
	}
	if action != Delete && e.Size > 0 {
		event.Target.Size, event.Target.Length = e.Size, e.Size
	}
	return event
}

func isManifest(op registry.Op) bool {
	switch op {
	case registry.OpManifestGet, registry.OpManifestPut, registry.OpManifestDelete:
		return true
	}
	return false
}

// targetPath returns the path of an event's content, "" for a deleted tag.
func targetPath(t Target, manifest bool) string {
	if t.Digest == "" {
		return ""
	}
	op := registry.OpBlobGet
	if manifest {
		op = registry.OpManifestGet
	}
	return registry.Request{Op: op, Repo: t.Repository, Digest: t.Digest, N: -1}.RequestURI()
}

// newID returns a random UUID (RFC 9562 section 5.4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Format is the format of the requests to an endpoint.
type Format int

const (
	// Distribution sends an [Envelope] with one or more events, as
	// application/vnd.docker.distribution.events.v2+json.
	Distribution Format = iota

	// CloudEvents sends one event in each request, as application/cloudevents+json
	// of the version 1.0. The data is an [Event], the type
	// com.github.berth-oci.registry. and the action, the subject the repository with
	// @ and the digest, or : and the tag.
	CloudEvents

	// CloudEventsBatch sends an array of one or more, as
	// application/cloudevents-batch+json.
	CloudEventsBatch
)

func (f Format) contentType() string {
	switch f {
	case CloudEvents:
		return "application/cloudevents+json"
	case CloudEventsBatch:
		return "application/cloudevents-batch+json"
	}
	return "application/vnd.docker.distribution.events.v2+json"
}

// cloudEvent is an event as CloudEvents describes it.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject,omitempty"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
}

// encode returns the body of a request with entries, of which there is at least one.
func (f Format) encode(entries []*entry, source string) ([]byte, error) {
	var b bytes.Buffer
	switch f {
	case Distribution:
		b.WriteString(`{"events":[`)
		for i, e := range entries {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(e.data)
		}
		b.WriteString("]}")
		return b.Bytes(), nil
	case CloudEvents:
		return json.Marshal(newCloudEvent(entries[0], source))
	}
	batch := make([]cloudEvent, len(entries))
	for i, e := range entries {
		batch[i] = newCloudEvent(e, source)
	}
	return json.Marshal(batch)
}

func newCloudEvent(e *entry, source string) cloudEvent {
	target := e.event.Target
	subject := target.Repository
	switch {
	case target.Digest != "":
		subject += "@" + string(target.Digest)
	case target.Tag != "":
		subject += ":" + target.Tag
	}
	return cloudEvent{
		SpecVersion:     "1.0",
		ID:              e.event.ID,
		Source:          source,
		Type:            "com.github.berth-oci.registry." + e.event.Action,
		Subject:         subject,
		Time:            e.event.Timestamp,
		DataContentType: "application/json",
		Data:            e.data,
	}
}
