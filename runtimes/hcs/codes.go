package hcs

import "github.com/tandem-gitops/tandem/runtimes"

// codes of the compute and network services that mean something to us, as
// normal writes them. The old calls answer 0xc037… for the new ones' 0x8037….
const (
	codeTerminatedAtStart  = 0x80370100
	codeOSMismatch         = 0x80370101
	codeNoHyperV           = 0x80370102
	codePending            = 0x80370103
	codeInvalidState       = 0x80370105
	codeUnexpectedExit     = 0x80370106
	codeTerminated         = 0x80370107
	codeConnectFailed      = 0x80370108
	codeConnectTimeout     = 0x80370109
	codeConnectionClosed   = 0x8037010a
	codeUnknownMessage     = 0x8037010b
	codeProtocolVersion    = 0x8037010c
	codeInvalidJSON        = 0x8037010d
	codeNoSuchSystem       = 0x8037010e
	codeExists             = 0x8037010f
	codeStopped            = 0x80370110
	codeInvalidLayer       = 0x80370112
	codeServiceUnavailable = 0x80370114
	codeOperationPending   = 0x80370117
	codeTimeout            = 0x80370118
	codeHCSAccessDenied    = 0x8037011b
	codeServiceDisconnect  = 0x8037011e
	codeProcessStopped     = 0x8037011f
	codeNotFound           = 0x80070490
	codeFileNotFound       = 0x80070002
	codePathNotFound       = 0x80070003
	codeAccessDenied       = 0x80070005
	codeInvalidHandle      = 0x80070006
	codeInvalidData        = 0x8007000d
	codeSharing            = 0x80070020
	codeWrongDisk          = 0x80070022
	codeNotSupported       = 0x80070032
	codeDiskFull           = 0x80070070
	codeLogonFailure       = 0x8007052e
	codeNoSuchUser         = 0x80070534
	codeNoResources        = 0x800705aa
	codePagingFile         = 0x800705af
	codeRPCUnavailable     = 0x800706ba
	codeRPCFailed          = 0x800706be
	codeNetworkNotFound    = 0x803b0001
	codeEndpointNotFound   = 0x803b0002
	codeDuplicateNetwork   = 0x803b0010
	codePortExists         = 0x803b0013
	codeBadAddress         = 0x803b002f
)

// An op is what was asked of Windows, as errors say it.
type op string

const (
	opImport    op = "import a layer"
	opScratch   op = "make the writable layer"
	opActivate  op = "activate the writable layer"
	opPrepare   op = "prepare the writable layer"
	opMount     op = "mount the writable layer"
	opName      op = "name a layer"
	opDropLayer op = "remove a layer"

	opCreate  op = "create the container"
	opStart   op = "start the container"
	opProcess op = "start the process"
	opExec    op = "start the command"

	opOpen        op = "open the container"
	opList        op = "list containers"
	opShutdown    op = "shut the container down"
	opTerminate   op = "terminate the container"
	opOpenProcess op = "open the process"
	opAskProcess  op = "ask for the process"
	opWatch       op = "watch the process"
	opKillProcess op = "kill the process"
	opChange      op = "change the process"
)

// A kind of ops: the same code means another thing at another place.
type kind uint8

const (
	atLayer   kind = 1 << iota // layers of images and of containers
	atCreate                   // of a container, before anything runs
	atProcess                  // its first process
	atExec                     // a further one
	atSystem                   // what is there: found, watched, ended
	atNetwork                  // everything at the network service

	atStart    = atCreate | atProcess
	atCompute  = atStart | atExec | atSystem
	everywhere = atLayer | atCompute | atNetwork
)

func (o op) kind() kind {
	switch o {
	case opImport, opScratch, opActivate, opPrepare, opMount, opName, opDropLayer:
		return atLayer
	case opCreate, opStart:
		return atCreate
	case opProcess:
		return atProcess
	case opExec:
		return atExec
	case opOpen, opList, opShutdown, opTerminate, opOpenProcess, opAskProcess, opWatch, opKillProcess, opChange:
		return atSystem
	}
	return atNetwork // what runtimes/network asks has names of its own
}

// A reason is what a code means for a person and a machine.
type reason struct {
	class  error
	text   string
	remedy string
}

// A row says what codes mean at some places. The first that fits counts.
type row struct {
	codes []uint32
	at    kind
	reason
}

// table is all that is known of codes.
func table() []row {
	const (
		again   = "it is tried again"
		started = "nothing: it is started again if it should run"
		account = "run the agent as a service of LocalSystem, or as an administrator"
		service = "it is tried again; if this stays, restart the service vmcompute"
		hns     = "it is made again; if this stays, restart the service hns"
		ours    = "report it with this message: it is an error of Tandem, or this Windows is too old"
		commit  = "set memory limits so that the node isn't committed too far"
		user    = "use ContainerUser, ContainerAdministrator or a user of the image as runAsUserName"
	)
	later, never, refused, gone := runtimes.ErrUnavailable, runtimes.ErrUnsupported, runtimes.ErrRejected, runtimes.ErrNotFound
	codes := func(list ...uint32) []uint32 { return list }
	return []row{
		{codes(codeOSMismatch), everywhere, reason{never, "the image's Windows doesn't match this machine's", "use an image for this build, or a node with Hyper-V isolation"}},
		{codes(codeNoHyperV), everywhere, reason{never, "Hyper-V isn't installed", "install it: Install-WindowsFeature Hyper-V, in a virtual machine with nested virtualisation; or use process isolation"}},
		{codes(codePending, codeOperationPending), everywhere, reason{later, "the operation goes on", again}},
		{codes(codeInvalidState), everywhere, reason{later, "it is in a state that doesn't allow this", again}},
		{codes(codeUnexpectedExit, codeTerminatedAtStart, codeTerminated), everywhere, reason{later, "the container ended while it was used", "it is started again; look at its log"}},
		{codes(codeConnectFailed, codeConnectTimeout, codeConnectionClosed), everywhere, reason{later, "the connection to the container was lost", "it is started again"}},
		{codes(codeUnknownMessage, codeProtocolVersion, codeInvalidJSON, codeInvalidData), everywhere, reason{refused, "Windows doesn't understand what it is asked", ours}},
		{codes(codeNoSuchSystem, codeStopped, codeProcessStopped), atStart, reason{later, "the container ended while it was started", "it is started again; look at its log"}},
		{codes(codeNoSuchSystem, codeStopped, codeProcessStopped), everywhere, reason{gone, "it has stopped already", started}},
		{codes(codeExists), everywhere, reason{later, "a container of this name exists already", "it is removed and started again"}},
		{codes(codeInvalidLayer), everywhere, reason{later, "a layer of the image is damaged", "remove hcs\\layers of the node's directory while no pod runs, and images are fetched again"}},
		{codes(codeTimeout), everywhere, reason{later, "the compute service took more than four minutes", "it is tried again; see whether the machine is short of memory"}},
		{codes(codeServiceUnavailable, codeServiceDisconnect, codeRPCUnavailable, codeRPCFailed), atNetwork, reason{later, "the network service doesn't answer", "it is tried again; if this stays, restart the service hns"}},
		{codes(codeServiceUnavailable, codeServiceDisconnect, codeRPCUnavailable, codeRPCFailed), everywhere, reason{later, "the compute service doesn't answer", service}},
		{codes(codeInvalidHandle), everywhere, reason{later, "Windows' service was restarted meanwhile", again}},
		{codes(codeNotFound), atCreate | atProcess | atNetwork, reason{later, "the network service has lost what was made", hns}},
		{codes(codeNotFound), atLayer, reason{later, "a layer isn't there", again}},
		{codes(codeNotFound), everywhere, reason{gone, "it isn't there", started}},
		{codes(codeNetworkNotFound, codeEndpointNotFound), everywhere, reason{later, "the network service has lost what was made", hns}},
		{codes(codeDuplicateNetwork), everywhere, reason{later, "a network of this name, or with these addresses, exists already", "remove it: Get-HnsNetwork | Remove-HnsNetwork"}},
		{codes(codePortExists), everywhere, reason{later, "the port is taken by another policy or endpoint", "leaked policies are removed and it is tried again; if this stays, restart the service hns"}},
		{codes(codeBadAddress), everywhere, reason{later, "the address doesn't belong to the network", "give the node a range of its own that no other network uses"}},
		{codes(codeWrongDisk), everywhere, reason{later, "the network service and its driver are of different versions", "restart the machine: an update is half installed"}},
		{codes(codeFileNotFound), atProcess | atExec, reason{refused, "the program isn't in the image", "mend command or the image's entrypoint"}},
		{codes(codePathNotFound), atProcess | atExec, reason{refused, "a directory of the container isn't there", "mend workingDir or command"}},
		{codes(codeFileNotFound, codePathNotFound), atCreate, reason{later, "a directory that the container mounts isn't there", "make the directory of its hostPath volume on this machine"}},
		{codes(codeFileNotFound, codePathNotFound), everywhere, reason{later, "a file of Windows' or of the node's directory isn't there", again}},
		{codes(codeAccessDenied), atProcess | atExec, reason{refused, "the container's user may not run the program", "give that user access to it, or set another as runAsUserName"}},
		{codes(codeAccessDenied), atLayer, reason{later, "access to a layer is denied", account + "; and except the node's directory from virus scanners"}},
		{codes(codeAccessDenied, codeHCSAccessDenied), everywhere, reason{later, "this agent may not do that", account}},
		{codes(codeSharing), everywhere, reason{later, "something has a file of it open", "it is tried again; except the node's directory from virus scanners"}},
		{codes(codeNotSupported), everywhere, reason{never, "this Windows doesn't do that", "use Windows Server 2019 or later with the feature Containers"}},
		{codes(codeDiskFull), everywhere, reason{later, "the disk is full", "make room on the volume of the node's directory"}},
		{codes(codePagingFile), everywhere, reason{later, "the paging file is too small", "enlarge it, or " + commit}},
		{codes(codeNoResources), everywhere, reason{later, "the machine is short of memory", commit}},
		{codes(codeLogonFailure), everywhere, reason{refused, "the user can't log on in the container", user}},
		{codes(codeNoSuchUser), everywhere, reason{refused, "the image has no such user", user}},
	}
}
