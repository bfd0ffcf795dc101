// SPDX-License-Identifier: Apache-2.0

// The audit log.

package main

import (
	"encoding/json"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/berth-oci/registry"
)

// auditLog is a file of JSON lines: a line for each request that reads or changes
// content, and for each login or request that was rejected.
type auditLog struct {
	name string

	mu   sync.Mutex // guards file
	file *os.File
}

func openAudit(name string) (*auditLog, error) {
	a := &auditLog{name: name}
	return a, a.reopen()
}

// reopen opens the file again by its name, since another program may have renamed it.
func (a *auditLog) reopen() error {
	file, err := os.OpenFile(a.name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		a.file.Close()
	}
	a.file = file
	return nil
}

// auditEntry is a line of the audit log.
type auditEntry struct {
	Time       time.Time `json:"time"`
	User       string    `json:"user"` // "" for a client without credentials
	Remote     string    `json:"remote"`
	Op         string    `json:"op"`
	Repository string    `json:"repository,omitempty"`
	Tag        string    `json:"tag,omitempty"`
	Tags       []string  `json:"tags,omitempty"`
	Digest     string    `json:"digest,omitempty"`
	From       string    `json:"from,omitempty"`
	Result     string    `json:"result"` // ok, rejected, failed
	Changed    bool      `json:"changed"`
	Status     int       `json:"status"`
	Error      string    `json:"error,omitempty"`
	UserAgent  string    `json:"user_agent,omitempty"`
}

// write writes the line of a request. It returns the error of a full disk, for example.
func (a *auditLog) write(e registry.Event) error {
	entry := auditEntry{
		Time:       e.Time.UTC(),
		User:       clip(e.User),
		Remote:     e.HTTP.RemoteAddr,
		Op:         string(e.Request.Op),
		Repository: clip(e.Request.Repo),
		Tag:        clip(e.Request.Tag),
		Tags:       e.Tags,
		Digest:     clip(string(e.Digest)),
		From:       clip(e.Request.From),
		Result:     "ok",
		Changed:    e.Changed,
		Status:     e.Status,
		UserAgent:  clip(e.HTTP.UserAgent()),
	}
	if entry.Tag != "" {
		entry.Tags = nil
	}
	switch {
	case e.Status >= 500 || e.Status == 0:
		entry.Result = "failed"
	case e.Status >= 400:
		entry.Result = "rejected"
	}
	if e.Err != nil {
		entry.Error = clip(e.Err.Error())
	}
	switch {
	case isLogin(e):
		entry.Op = "login"
	case entry.Op == "":
		entry.Op = "other"
	}
	if !audited(entry, e) {
		return nil
	}
	line, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err = a.file.Write(append(line, '\n'))
	return err
}

// audited reports whether an audit requires the entry: not requests by which clients
// find out what to do.
func audited(entry auditEntry, e registry.Event) bool {
	switch {
	case asksToLogIn(e):
		return false
	case isDenial(e.Status):
		return true // for whatever path: it may be a guess of a password
	case entry.Op == "other", e.HTTP.Method == http.MethodHead:
		return false
	case e.Request.Op == registry.OpPing:
		return e.Status >= 400
	}
	return true
}

// isDenial reports whether a status is that of a request that was rejected for who sent
// it, or how.
func isDenial(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMisdirectedRequest, http.StatusTooManyRequests:
		return true
	}
	return false
}
