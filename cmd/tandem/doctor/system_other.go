//go:build !linux

package doctor

import "context"

func system(context.Context, *Options) []Finding {
	return []Finding{{Name: "system", State: Bad, Detail: "no agent runs on this operating system yet", Remedy: "join Linux machines, or simulate: tandem up --simulate windows=1"}}
}
