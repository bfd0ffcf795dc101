// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"net/url"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestAzureOpen opens containers with the parameters of their URLs, and variables.
func TestAzureOpen(t *testing.T) {
	const (
		key        = "AZURE_STORAGE_KEY=a2V5"
		connection = "AZURE_STORAGE_CONNECTION_STRING=DefaultEndpointsProtocol=http;AccountName=other;AccountKey=a2V5;EndpointSuffix=core.windows.net"
	)
	for _, test := range []struct {
		name, query string
		variables   []string
		want        string // the container's URL or, after "error: ", a part of the error
	}{
		{"default", "", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "https://a.blob.core.windows.net/c"},
		{"identity", "", []string{"AZURE_STORAGE_ACCOUNT=a"}, "https://a.blob.core.windows.net/c"},
		{"account", "storage_account=b", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "https://b.blob.core.windows.net/c"},
		{"domain", "domain=example.com&protocol=http", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "http://a.example.com/c"},
		{"variables", "", []string{"AZURE_STORAGE_ACCOUNT=a", "AZURE_STORAGE_DOMAIN=example.com", "AZURE_STORAGE_PROTOCOL=http", key}, "http://a.example.com/c"},
		{"cdn", "domain=example.com&cdn=true", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "https://example.com/c"},
		{"no cdn", "domain=example.com&cdn=false", []string{"AZURE_STORAGE_ACCOUNT=a", "AZURE_STORAGE_IS_CDN=true", key}, "https://a.example.com/c"},
		{"emulator", "domain=emulator:1&protocol=http&localemu=true", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "http://emulator:1/a/c"},
		{"local", "domain=127.0.0.1:1&protocol=http", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "http://127.0.0.1:1/a/c"},
		{"signature", "", []string{"AZURE_STORAGE_ACCOUNT=a", "AZURE_STORAGE_SAS_TOKEN=?sv=1&sig=2"}, "https://a.blob.core.windows.net/c?sv=1&sig=2"},
		{"connection string", "", []string{connection}, "http://other.blob.core.windows.net/c"},
		{"no account", "", nil, "error: set AZURE_STORAGE_ACCOUNT"},
		{"unknown", "prefix=p", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "error: unknown parameter"},
		{"twice", "domain=a&domain=b", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "error: several values of domain"},
		{"no bool", "cdn=maybe", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "error: invalid value for cdn"},
		{"protocol", "protocol=ftp", []string{"AZURE_STORAGE_ACCOUNT=a", key}, "error: invalid protocol"},
		{"key", "", []string{"AZURE_STORAGE_ACCOUNT=a", "AZURE_STORAGE_KEY=?"}, "error: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range []string{"ACCOUNT", "KEY", "SAS_TOKEN", "CONNECTION_STRING", "DOMAIN", "PROTOCOL", "IS_CDN", "IS_LOCAL_EMULATOR"} {
				t.Setenv("AZURE_STORAGE_"+name, "")
			}
			for _, v := range test.variables {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			u, err := url.Parse("azblob://c?" + test.query)
			qt.Assert(t, qt.IsNil(err))
			b, err := OpenAzure(u)
			if text, ok := strings.CutPrefix(test.want, "error: "); ok {
				qt.Assert(t, qt.ErrorMatches(err, "objects: .*"+text+".*"))
				return
			}
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(b.(azureBucket).client.URL(), test.want))
		})
	}
}
