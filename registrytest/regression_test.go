// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// TestUnfiredIncludesRulesThatAnOuterFaultPrevents checks that a fault counts only if
// a request has reached it.
func TestUnfiredIncludesRulesThatAnOuterFaultPrevents(t *testing.T) {
	faults := registrytest.NewFaults(
		registrytest.Rule{Repo: "outer", Fault: registrytest.Respond(503, "not now")},
		registrytest.Rule{Op: registry.OpTags, Fault: registrytest.Corrupt()},
	)
	c := newJournaled(t, faults.Handler(registry.New()))
	c.send("GET", "/v2/outer/tags/list", "")
	unfired := faults.Unfired()
	qt.Assert(t, qt.HasLen(unfired, 1))
	qt.Check(t, qt.Equals(unfired[0].Op, registry.OpTags))
	c.send("GET", "/v2/inner/tags/list", "")
	qt.Check(t, qt.HasLen(faults.Unfired(), 0))
}

// TestJournalHidesCredentialsOfAnyShape sends credentials without a scheme, or with
// one that may be part of a secret.
func TestJournalHidesCredentialsOfAnyShape(t *testing.T) {
	for value, want := range map[string]string{
		"ghp_s3cr3t":              "unknown",
		"s3cr3t s3cr3t":           "unknown",
		"Bearer s3cr3t":           "Bearer",
		"Bearer\ts3cr3t":          "Bearer",
		"bearer s3cr3t":           "bearer",
		"Basic":                   "Basic",
		"AWS4-HMAC-SHA256 s3cr3t": "AWS4-HMAC-SHA256",
	} {
		c := newJournaled(t, registry.New())
		c.send("GET", "/v2/", "", "Authorization", value)
		qt.Check(t, qt.Equals(c.journal.Entries()[0].Auth, want))
		qt.Check(t, qt.IsFalse(strings.Contains(c.journal.String(), "s3cr3t")), qt.Commentf("%s", c.journal))
		qt.Check(t, qt.HasLen(c.journal.UnsolicitedCredentials(), 1))
	}
}

// TestJournalPrintsNoControlCharacters sends names that would clear a terminal, or
// forge a line of the journal.
func TestJournalPrintsNoControlCharacters(t *testing.T) {
	c := newJournaled(t, registry.New())
	for _, path := range []string{
		"/x%1b[2J%0A9%20GET%20forged", "/v2/a%1b%0A/tags/list", "/v2/a/manifests/%1b%0A", "/v2/a/blobs/uploads/%1b%0A",
		"/v2/a/blobs/uploads/?mount=%1b%0A&from=%1b%0A", "/v2/a/manifests/x?digest=%1b",
	} {
		for _, method := range []string{"GET", "PUT", "POST"} {
			c.send(method, path, "")
		}
	}
	qt.Check(t, qt.IsFalse(strings.ContainsAny(c.journal.String(), "\x1b\x00")))
	qt.Check(t, qt.Equals(strings.Count(c.journal.String(), "\n"), c.journal.Count()+1))
	for _, finding := range c.journal.Lint() {
		qt.Check(t, qt.IsFalse(strings.ContainsAny(finding.String(), "\x1b\n")), qt.Commentf("%q", finding.String()))
	}
}

// TestNilIsRejectedAtConstruction checks that a missing part is reported where it is
// missing, not by a panic in a request.
func TestNilIsRejectedAtConstruction(t *testing.T) {
	for want, construct := range map[string]func(){
		"registrytest: rule 1 has no Fault": func() {
			registrytest.NewFaults(registrytest.Rule{Fault: registrytest.Corrupt()}, registrytest.Rule{Op: registry.OpTags})
		},
		"registrytest: Transport requires a handler":           func() { registrytest.Transport(nil) },
		"registrytest: Faults.Handler requires a handler":      func() { registrytest.NewFaults().Handler(nil) },
		"journal: Journal.Handler requires a handler":          func() { new(registrytest.Journal).Handler(nil) },
		`registrytest: the handler of the registry "a" is nil`: func() { registrytest.Namespaces(map[string]http.Handler{"a": nil}) },
	} {
		qt.Check(t, qt.PanicMatches(construct, want))
	}
}
