package hcs

import (
	"fmt"

	"github.com/tandem-gitops/tandem/runtimes"
)

// codes of the compute and network services that mean something to us, as
// normal writes them. The old calls answer 0xc037… for the new ones' 0x8037….
const (
	codeOSMismatch         = 0x80370101
	codePending            = 0x80370103
	codeInvalidState       = 0x80370105
	codeUnexpectedExit     = 0x80370106
	codeUnknownMessage     = 0x8037010b
	codeProtocolVersion    = 0x8037010c
	codeInvalidJSON        = 0x8037010d
	codeNoSuchSystem       = 0x8037010e
	codeTimeout            = 0x80370118
	codeConnectionClosed   = 0x8037010a
	codeExists             = 0x8037010f
	codeStopped            = 0x80370110
	codeServiceUnavailable = 0x80370114
	codeProcessStopped     = 0x8037011f
	codeNotFound           = 0x80070490
	codeFileNotFound       = 0x80070002
	codePathNotFound       = 0x80070003
	codeAccessDenied       = 0x80070005
	codeInvalidHandle      = 0x80070006
	codeInvalidData        = 0x8007000d
	codeNotSupported       = 0x80070032
	codeWrongDisk          = 0x80070022
	codeDiskFull           = 0x80070070
	codePagingFile         = 0x800705af
	codeNoResources        = 0x800705aa
	codeRPCUnavailable     = 0x800706ba
	codeLogonFailure       = 0x8007052e
	codeNoSuchUser         = 0x80070534
	codePortExists         = 0x803b0013
	codeNetworkNotFound    = 0x803b0001
	codeEndpointNotFound   = 0x803b0002
	codeBadAddress         = 0x803b002f
	codeDuplicateNetwork   = 0x803b0010
)

// A reason is what a code means for a person and a machine.
type reason struct {
	class  error
	text   string
	remedy string
}

// explain finds the reason of a code; one that isn't known may pass.
func explain(code uint32) reason {
	if r, ok := reasons()[normal(code)]; ok {
		return r
	}
	return reason{runtimes.ErrUnavailable, "the compute service failed", "see the event log Microsoft-Windows-Hyper-V-Compute-Operational"}
}

// normal writes a code in the one way that this file knows: a plain Win32 error
// as the HRESULT that it is short for, and the compute service's as HRESULT.
func normal(code uint32) uint32 {
	switch {
	case code != 0 && code <= 0xffff:
		return 0x80070000 | code
	case code>>16 == 0xc037:
		return 0x80370000 | code&0xffff
	}
	return code
}

func reasons() map[uint32]reason {
	gone := reason{runtimes.ErrNotFound, "the container isn't there", "nothing: it is started again if it should run"}
	stopped := reason{runtimes.ErrNotFound, "it has stopped already", "nothing: it is started again if it should run"}
	service := reason{runtimes.ErrUnavailable, "the compute service doesn't answer", "it is tried again; if this stays, restart the service vmcompute"}
	ours := reason{runtimes.ErrRejected, "the compute service doesn't understand what it is asked", "report it with this message: it is an error of Tandem, or this Windows is too old"}
	network := reason{runtimes.ErrUnavailable, "the network service has lost what was made", "it is made again; if this stays, restart the service hns"}
	return map[uint32]reason{
		codeOSMismatch:         {runtimes.ErrUnsupported, "the image's Windows doesn't match this machine's", "use an image for this build, or a node with Hyper-V isolation"},
		codePending:            {runtimes.ErrUnavailable, "the operation goes on", "it is tried again"},
		codeInvalidState:       {runtimes.ErrUnavailable, "the container is in a state that doesn't allow this", "it is tried again"},
		codeUnexpectedExit:     {runtimes.ErrUnavailable, "the container ended while it was started", "it is started again; look at its log"},
		codeConnectionClosed:   {runtimes.ErrUnavailable, "the connection to the container was closed", "it is started again"},
		codeUnknownMessage:     ours,
		codeProtocolVersion:    ours,
		codeInvalidJSON:        ours,
		codeNoSuchSystem:       gone,
		codeStopped:            stopped,
		codeProcessStopped:     stopped,
		codeExists:             {runtimes.ErrUnavailable, "a container of this name exists already", "it is removed and started again"},
		codeTimeout:            {runtimes.ErrUnavailable, "the compute service took more than four minutes", "it is tried again; see whether the machine is short of memory"},
		codeServiceUnavailable: service,
		codeRPCUnavailable:     service,
		codeInvalidHandle:      {runtimes.ErrUnavailable, "the compute service was restarted", "it is tried again"},
		codeNotFound:           network,
		codeNetworkNotFound:    network,
		codeEndpointNotFound:   network,
		codeDuplicateNetwork:   {runtimes.ErrUnavailable, "a network of this name exists already", "remove it: Get-HnsNetwork | Remove-HnsNetwork"},
		codePortExists:         {runtimes.ErrUnavailable, "the port is taken by another policy or endpoint", "leaked policies are removed and it is tried again; if this stays, restart the service hns"},
		codeBadAddress:         {runtimes.ErrRejected, "the address doesn't belong to the network", "give the node a range of its own that no other network uses"},
		codeWrongDisk:          {runtimes.ErrUnavailable, "the network service and its driver are of different versions", "restart the machine: an update is half installed"},
		codeFileNotFound:       {runtimes.ErrRejected, "the program isn't in the image", "mend command or the image's entrypoint"},
		codePathNotFound:       {runtimes.ErrRejected, "a directory of the container isn't there", "mend workingDir or command"},
		codeAccessDenied:       {runtimes.ErrRejected, "access is denied", "give the container's user access to the volume or the program"},
		codeInvalidData:        ours,
		codeNotSupported:       {runtimes.ErrUnsupported, "this Windows doesn't do that", "use Windows Server 2019 or later with the feature Containers"},
		codeDiskFull:           {runtimes.ErrUnavailable, "the disk is full", "make room on the volume of the node's directory"},
		codePagingFile:         {runtimes.ErrUnavailable, "the paging file is too small", "enlarge it, or set memory limits so that the node isn't committed too far"},
		codeNoResources:        {runtimes.ErrUnavailable, "the machine is short of memory", "set memory limits so that the node isn't committed too far"},
		codeLogonFailure:       {runtimes.ErrRejected, "the user can't log on in the container", "use ContainerUser, ContainerAdministrator or a user of the image as runAsUserName"},
		codeNoSuchUser:         {runtimes.ErrRejected, "the image has no such user", "use ContainerUser, ContainerAdministrator or a user of the image as runAsUserName"},
	}
}

// An Error is what Windows answered, with what it means.
type Error struct {
	Op   string // "start", "create process"
	Code uint32
	Text string // Windows' own, if any
}

// Error is "start: the paging file is too small (0x800705af); enlarge it …".
func (e *Error) Error() string {
	r := explain(e.Code)
	text := ""
	if e.Text != "" {
		text = ": " + e.Text
	}
	return fmt.Sprintf("%s: %s (0x%08x%s); %s", e.Op, r.text, e.Code, text, r.remedy)
}

// Unwrap returns the class.
func (e *Error) Unwrap() error { return explain(e.Code).class }
