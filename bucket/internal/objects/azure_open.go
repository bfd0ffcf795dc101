// SPDX-License-Identifier: Apache-2.0

// Opening a container of Azure Blob Storage.

package objects

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// OpenAzure opens the container of a URL such as azblob://name, with the parameters and
// the environment variables of gocloud.dev/blob/azureblob. It makes no request.
func OpenAzure(u *url.URL) (Bucket, error) {
	if u.Host == "" {
		return nil, errors.New("objects: the URL of a container of Azure has no name")
	}
	connection := cmp.Or(os.Getenv("AZURE_STORAGE_CONNECTION_STRING"), os.Getenv("AZURE_STORAGEBLOB_CONNECTIONSTRING"))
	service, err := azureService(u.Query(), connection)
	if err != nil {
		return nil, err
	}
	client, err := newAzureClient(service, u.Host, connection)
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	return NewAzure(client), nil
}

// newAzureClient returns a client with the first credentials that the environment has.
func newAzureClient(service *url.URL, name, connection string) (*container.Client, error) {
	opts := &container.ClientOptions{}
	opts.Telemetry = policy.TelemetryOptions{ApplicationID: "berth"}
	address := service.JoinPath(name).String()
	account, key := os.Getenv("AZURE_STORAGE_ACCOUNT"), os.Getenv("AZURE_STORAGE_KEY")
	switch {
	case account != "" && key != "":
		credential, err := container.NewSharedKeyCredential(account, key)
		if err != nil {
			return nil, err
		}
		return container.NewClientWithSharedKeyCredential(address, credential, opts)
	case service.RawQuery != "": // a signature
		return container.NewClientWithNoCredential(address, opts)
	case connection != "":
		return container.NewClientFromConnectionString(connection, name, opts)
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, err
	}
	return container.NewClient(address, credential, opts)
}

// azureService returns the URL of an account, with the signature that the environment
// has, if any.
func azureService(q url.Values, connection string) (*url.URL, error) {
	for name, values := range q {
		if len(values) > 1 {
			return nil, fmt.Errorf("objects: several values of %s", name)
		}
	}
	account := cmp.Or(take(q, "storage_account"), os.Getenv("AZURE_STORAGE_ACCOUNT"), connectionField(connection, "AccountName"))
	domain := cmp.Or(take(q, "domain"), os.Getenv("AZURE_STORAGE_DOMAIN"), "blob.core.windows.net")
	protocol := cmp.Or(take(q, "protocol"), os.Getenv("AZURE_STORAGE_PROTOCOL"), connectionField(connection, "DefaultEndpointsProtocol"), "https")
	emulator, err1 := azureBool(q, "localemu", "AZURE_STORAGE_IS_LOCAL_EMULATOR")
	cdn, err2 := azureBool(q, "cdn", "AZURE_STORAGE_IS_CDN")
	if err := errors.Join(err1, err2, rejectUnknown(q)); err != nil {
		return nil, err
	}
	if account == "" {
		return nil, errors.New("objects: set AZURE_STORAGE_ACCOUNT to the name of a storage account of Azure")
	}
	if protocol != "http" && protocol != "https" {
		return nil, fmt.Errorf("objects: invalid protocol %q", protocol)
	}
	address := protocol + "://" + account + "." + domain
	if emulator || strings.HasPrefix(domain, "127.0.0.1") || strings.HasPrefix(domain, "localhost") {
		address = protocol + "://" + domain + "/" + account
	} else if cdn {
		address = protocol + "://" + domain
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	u.RawQuery = strings.TrimPrefix(os.Getenv("AZURE_STORAGE_SAS_TOKEN"), "?")
	return u, nil
}

// azureBool returns a parameter or, without it, an environment variable.
func azureBool(q url.Values, name, variable string) (bool, error) {
	if !q.Has(name) {
		if v := os.Getenv(variable); v != "" {
			on, err := strconv.ParseBool(v)
			if err != nil {
				return false, fmt.Errorf("objects: invalid value for %s: %q", variable, v)
			}
			return on, nil
		}
	}
	return takeBool(q, name)
}

// connectionField returns a field of a connection string, "" if it has none.
func connectionField(connection, name string) string {
	for field := range strings.SplitSeq(connection, ";") {
		if k, v, _ := strings.Cut(field, "="); k == name {
			return v
		}
	}
	return ""
}
