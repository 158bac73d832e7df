import GuestMemory
public import MachineModel
import X86

/// A debugger's side of GDB's remote serial protocol (GDB manual, appendix E): its packets in, answers out. vCPUs are threads, numbered from 1;
/// they stop and go on together.
///
/// What comes is a client's: nothing in it ends anything but what the debugger may end.
public struct GDBSession {
    static let maximumBreakpoints = 1024
    static let maximumWatchpoints = 64

    var vcpus: [any VCPU] = []
    let memory: GuestMemory
    /// vCPUs run, or are about to: nothing but an interruption is served.
    public internal(set) var isRunning = true
    /// By index, those that `isRunning` is about.
    public internal(set) var resumed: Set<Int> = []
    /// The machine is to end.
    public internal(set) var isKilled = false

    private var reader = GDBPacketReader()
    private var acknowledges = true
    private var lastSent: [UInt8] = []
    var lastStop: [UInt8] = []
    /// The vCPU that registers and memory are asked of.
    var current = 0
    var usesPhysicalAddresses = false
    var softwareBreakpoints: Set<UInt64> = []
    var hardwareBreakpoints: Set<UInt64> = []
    var watchpoints: [Watchpoint] = []
    /// Of what qSupported offered: stop replies may say so.
    var tellsSoftwareBreakpoints = false
    var tellsHardwareBreakpoints = false

    public init(memory: GuestMemory) { self.memory = memory }

    /// The vCPUs from here on, which get the breakpoints of those before. None of them is in `run`.
    public mutating func use(_ vcpus: [any VCPU]) {
        self.vcpus = vcpus
        current = 0
        if isRunning { resumed = Set(vcpus.indices) }
        apply(stepping: [])
    }

    /// A debugger has come: vCPUs have stopped.
    public mutating func begin() {
        self = GDBSession(memory: memory, vcpus: vcpus)
        isRunning = false
        lastStop = stopReply(signal: 5, vcpu: 0)
    }

    private init(memory: GuestMemory, vcpus: [any VCPU]) {
        self.memory = memory
        self.vcpus = vcpus
    }

    /// The debugger has gone, or let go: everything is as without it, and vCPUs go on. None of them is in `run`.
    public mutating func end() {
        (softwareBreakpoints, hardwareBreakpoints, watchpoints) = ([], [], [])
        apply(stepping: [])
        isRunning = true
        resumed = Set(vcpus.indices)
    }

    /// Bytes from the debugger; gives those to send. `stop` is called when vCPUs are to be stopped, and returns when they have.
    public mutating func receive(_ bytes: [UInt8], stop: () -> Void) -> [UInt8] {
        var output: [UInt8] = []
        for event in reader.read(bytes) {
            switch event {
            case .interrupt:
                guard isRunning else { break }
                stop()
                output += didStop(vcpu: resumed.min() ?? 0, nil)
            case .resend: output += lastSent
            case .damaged: if acknowledges { output.append(UInt8(ascii: "-")) }
            case .packet(let data):
                if acknowledges { output.append(UInt8(ascii: "+")) }
                guard let answer = isRunning ? GDBAnswer.error(.busy) : answer(data) else { break }
                if data == Array("QStartNoAckMode".utf8) { acknowledges = false }
                output += send(answer.bytes)
            }
        }
        return output
    }

    /// A vCPU has stopped for what the debugger wanted, or (nil) because it interrupts; gives what to send. No vCPU is in `run`.
    public mutating func didStop(vcpu: Int, _ reason: DebugStop?) -> [UInt8] {
        isRunning = false
        current = vcpu
        var more: [UInt8] = []
        switch reason {
        case .breakpoint:
            let rip = vcpus[vcpu].saveState().rip
            if tellsSoftwareBreakpoints, softwareBreakpoints.contains(rip) {
                more = Array("swbreak:;".utf8)
            } else if tellsHardwareBreakpoints, hardwareBreakpoints.contains(rip) {
                more = Array("hwbreak:;".utf8)
            }
        case .watchpoint(let watchpoint):
            let name =
                switch watchpoint.kind {
                case .write: "watch"
                case .read: "rwatch"
                case .access: "awatch"
                }
            more = Array("\(name):\(String(watchpoint.address, radix: 16));".utf8)
        case .singleStep, nil: break
        }
        lastStop = stopReply(signal: reason == nil ? 2 : 5, vcpu: vcpu) + more
        return send(lastStop)
    }

    /// The machine has ended; gives what to send.
    public mutating func didEnd() -> [UInt8] { send(Array("W00".utf8)) }

    /// The watchpoint is still wanted.
    public func wants(_ watchpoint: Watchpoint) -> Bool { watchpoints.contains(watchpoint) }

    private func stopReply(signal: UInt8, vcpu: Int) -> [UInt8] {
        [UInt8(ascii: "T")] + Hex.bytes([signal]) + Array("thread:\(String(vcpu + 1, radix: 16));".utf8)
    }

    private mutating func send(_ data: [UInt8]) -> [UInt8] {
        lastSent = GDBPacket.frame(data)
        return lastSent
    }

    // MARK: - What vCPUs stop for

    private var request: DebugRequest {
        var request = DebugRequest()
        request.breakpoints = softwareBreakpoints.union(hardwareBreakpoints)
        request.watchpoints = watchpoints
        return request
    }

    /// Hands the breakpoints to all vCPUs, and single steps to some. False if an engine refuses.
    @discardableResult
    func apply(stepping: Set<Int>) -> Bool {
        for (index, vcpu) in vcpus.enumerated() {
            var request = request
            request.singleStep = stepping.contains(index)
            do throws(DebugRefusal) { try vcpu.setDebug(request) } catch { return false }
        }
        return true
    }
}

/// What a packet is answered with.
struct GDBAnswer {
    /// By Linux's numbers, which GDB shows.
    enum Failure: UInt8 {
        case input = 22
        case memory = 14
        case busy = 16
        case noSpace = 28
    }

    let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }
    init(_ text: String) { bytes = Array(text.utf8) }

    static let ok = GDBAnswer("OK")
    /// The packet is not known.
    static let unknown = GDBAnswer("")
    static func error(_ failure: Failure) -> GDBAnswer {
        GDBAnswer([UInt8(ascii: "E")] + Hex.bytes([failure.rawValue]))
    }
}
