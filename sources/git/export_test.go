package git

import (
	"bytes"
	"time"
)

// SetIdle shortens how long a transfer may stand still.
func (o *Options) SetIdle(d time.Duration) { o.idle = d }

// ParseModules is parseModules, for fuzzing.
func ParseModules(raw []byte) (map[string]string, error) { return parseModules(raw) }

// CheckPack is checkPack, for fuzzing.
func CheckPack(raw []byte) error { return checkPack(bytes.NewReader(raw), int64(len(raw))) }
