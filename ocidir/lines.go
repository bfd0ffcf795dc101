// SPDX-License-Identifier: Apache-2.0

// Lines with checksums, of which journals and caches consist.

package ocidir

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash/crc32"
	"io"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendLine appends v to b as a line: the CRC-32C of its JSON in 8 hexadecimal
// digits, a space, and the JSON.
func appendLine(b []byte, v any) ([]byte, error) {
	data, err := marshal(v)
	if err != nil {
		return nil, err
	}
	b = hex.AppendEncode(b, binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli)))
	b = append(b, ' ')
	b = append(b, data...)
	return append(b, '\n'), nil
}

// parseLine returns the JSON of a line, and whether the line is whole.
func parseLine(line []byte) (data []byte, ok bool) {
	const prefix = 8 + 1
	if len(line) <= prefix || line[prefix-1] != ' ' || line[len(line)-1] != '\n' {
		return nil, false
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[:8]); err != nil {
		return nil, false
	}
	data = line[prefix : len(line)-1]
	return data, crc32.Checksum(data, castagnoli) == binary.BigEndian.Uint32(sum[:])
}

// decodeLine decodes the JSON of a line, and reports whether the line is whole.
func decodeLine(line []byte, v any) bool {
	data, ok := parseLine(line)
	return ok && json.Unmarshal(data, v) == nil
}

// eachLine calls f with each line of r, which is valid until f returns.
func eachLine(r io.Reader, f func(line []byte) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	var long []byte
	for {
		line, err := b.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			long = append(long, line...)
			continue
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if len(line) > 0 {
			if err := f(line); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if long = long[:0]; cap(long) > 1<<20 {
			long = nil
		}
	}
}

// marshal is json.Marshal without escaping for HTML, which can make annotations
// six times as large.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
