// SPDX-License-Identifier: Apache-2.0

// The parameters of a URL of S3 that configure the AWS SDK.

package objects

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// s3Config returns the configuration that the parameters and the environment describe.
func s3Config(ctx context.Context, q url.Values) (aws.Config, error) {
	var opts []func(*config.LoadOptions) error
	if v := take(q, "region"); v != "" {
		opts = append(opts, config.WithRegion(v))
	}
	if v := take(q, "profile"); v != "" {
		opts = append(opts, config.WithSharedConfigProfile(v))
	}
	for _, p := range []struct {
		name   string
		option config.LoadOptionsFunc
	}{
		{"anonymous", config.WithCredentialsProvider(aws.AnonymousCredentials{})},
		{"dualstack", config.WithUseDualStackEndpoint(aws.DualStackEndpointStateEnabled)},
		{"fips", config.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled)},
	} {
		on, err := takeBool(q, p.name)
		if err != nil {
			return aws.Config{}, err
		}
		if on {
			opts = append(opts, p.option)
		}
	}
	for _, name := range []string{"request_checksum_calculation", "response_checksum_validation"} {
		switch v := take(q, name); {
		case v == "":
		case v != "when_supported" && v != "when_required":
			return aws.Config{}, fmt.Errorf("objects: invalid value for %s: %q", name, v)
		case name == "response_checksum_validation": // see once
		case v == "when_required":
			opts = append(opts, config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired))
		default:
			opts = append(opts, config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenSupported))
		}
	}
	role := take(q, "role")
	if role != "" && !strings.HasPrefix(role, "arn:") {
		return aws.Config{}, fmt.Errorf("objects: the role %q is no ARN, which begins with \"arn:\"", role)
	}
	if v := take(q, "awssdk"); v != "" && !strings.EqualFold(v, "v2") {
		return aws.Config{}, fmt.Errorf("objects: invalid value for awssdk: %q", v)
	}
	if err := rejectUnknown(q); err != nil {
		return aws.Config{}, err
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err == nil && role != "" {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role))
	}
	return cfg, err
}
