//go:build !linux && !windows

package doctor

import "context"

const fenceNeeds = "use Linux or Windows"

func checks() []check { return nil }

func system(context.Context, *Options) []Finding {
	return []Finding{{Name: "system", State: Bad, Detail: "no agent runs on this operating system", Remedy: "join Linux and Windows machines, or simulate: tandem up --simulate windows=1"}}
}
