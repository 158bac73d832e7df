import CDavit
import Glibc
import GuestMemory
import MachineModel
import Synchronization
import X86

/// One virtual CPU of KVM: its descriptor, the area shared with the kernel, and the loop around KVM_RUN.
// Unchecked: the shared area belongs to the thread in `run`, and to whoever calls `saveState` and `restore` while none is there.
// Other threads touch the atomics and `thread` only.
final class KVMVCPU: VCPU, @unchecked Sendable {
    let index: Int
    let descriptor: Int32
    let shared: KVMShared
    /// Mapped from the descriptor; unmapped in `deinit`.
    let area: UnsafeMutablePointer<kvm_run>
    /// The local APIC as KVM made it: what an empty `VCPUState.localAPIC` stands for.
    let resetAPIC: kvm_lapic_state
    /// The MSRs that are saved, with the values that KVM gave them: what those stand for that a `VCPUState` does not have.
    let resetMSRs: [UInt32: UInt64]

    /// What a kick sets; owned by this object.
    let target: UnsafeMutablePointer<davit_kick_target>
    // For `KVMVCPU+StandIn.swift`.
    let substitution: Substitution
    /// Guest TSC = host TSC + this.
    private(set) var tscOffset: UInt64 = 0
    /// What CPUID says when KVM answers.
    private(set) var shownCPUID: [CPUIDEntry] = []
    var turn = Turn.kvm
    var isStepping = false
    /// What a look at what waits has taken out of `area`.
    var lookedFrom: LookedFrom?
    /// Software has changed the guest's translations since KVM last dropped its own.
    var translationsChanged = false
    /// Of the last emulation failure, by the host's time-stamp counter.
    var lastFailure: UInt64 = 0
    /// The guest's interrupt table, which KVM does not get where software has the kernel.
    var interruptTable = TableRegisterState()
    /// KVM has been asked whether it could take an external interrupt, and has not run the guest since.
    var hasAskedForReadiness = false
    /// As KVM was entered the last time.
    var nmiWasBlocked = false
    var userFlags: UInt64 = 0
    // For `KVMVCPU+Debug.swift`.
    var debug = DebugRequest()
    var standInDebugIsStale = false
    /// DR0 to DR3 and DR7 while a debugger has them, and what the first four are for.
    var debugRegisters: [UInt64] = []
    var debugUses: [DebugStop] = []
    /// Kicks the thread in `run`; -1 while there is none.
    private var timer: Int64 = -1

    private let stopRequested = Atomic<Bool>(false)
    private let mustLook = Atomic<Bool>(false)
    /// The thread in `run`. Guards that it does not leave while it is being kicked.
    private let thread = Mutex<pthread_t?>(nil)

    /// Guest TSC = host TSC + `tscOffset`, where KVM can do that.
    init(index: Int, shared: KVMShared, cpuid: [CPUIDEntry], tscOffset: UInt64) throws(KVMError) {
        self.index = index
        self.shared = shared
        self.substitution = shared.substitution
        let result = davit_kvm(shared.machine.descriptor, DAVIT_KVM_CREATE_VCPU, UInt(index))
        guard result >= 0 else { throw KVMError("KVM_CREATE_VCPU", result) }
        descriptor = result
        let place = mmap(nil, shared.host.runAreaSize, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let place, place != MAP_FAILED else {
            let error = KVMError("mmap of a vCPU", -errno)
            close(descriptor)
            throw error
        }
        area = place.assumingMemoryBound(to: kvm_run.self)
        target = .allocate(capacity: 1)
        target.initialize(
            to: davit_kick_target(
                // Safe: the second byte of kvm_run, which is mapped as long as this object lives.
                immediate_exit: (place + 1).assumingMemoryBound(to: UInt8.self), request: nil, request_bits: 0))
        var apic = kvm_lapic_state()
        let hasAPIC = davit_kvm_with(descriptor, DAVIT_KVM_GET_LAPIC, &apic)
        resetAPIC = apic
        let hasCPUID = KVMCPUID.set(cpuid, on: descriptor)
        resetMSRs = Self.readMSRs(Self.savedMSRs, of: descriptor)
        // All stored properties are there: from here on `deinit` cleans up.
        guard hasAPIC >= 0 else { throw KVMError("KVM_GET_LAPIC", hasAPIC) }
        guard hasCPUID >= 0 else { throw KVMError("KVM_SET_CPUID2", hasCPUID) }
        shownCPUID = try KVMCPUID.shown(descriptor)
        if substitution.takesKernel {
            area.pointee.kvm_valid_regs = UInt64(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)
        }
        self.tscOffset = setTSCOffset(tscOffset)
        try shared.machine.ring?.add(vcpu: descriptor)
    }

    /// Guest TSC less host TSC as it really is: KVM that does not trap RDTSC leaves it at 0 whatever it is told.
    private func setTSCOffset(_ wanted: UInt64) -> UInt64 {
        var offset = wanted
        return withUnsafeMutablePointer(to: &offset) { place in
            var attribute = kvm_device_attr(
                flags: 0, group: UInt32(KVM_VCPU_TSC_CTRL), attr: UInt64(KVM_VCPU_TSC_OFFSET),
                addr: UInt64(UInt(bitPattern: place)))
            _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_DEVICE_ATTR, &attribute)
            if davit_kvm_with(descriptor, DAVIT_KVM_GET_DEVICE_ATTR, &attribute) >= 0 { return place.pointee }
            // Kernels before 5.16 start every machine's counter at 0.
            return timeStampCounter &- davit_rdtsc()
        }
    }

    deinit {
        target.deallocate()
        munmap(area, shared.host.runAreaSize)
        close(descriptor)
    }

    /// Of `run`, by KVM's reasons: for --stats. Only the vCPU's thread counts.
    var counts = KVMStatistics()

    func statistics() -> [(name: String, value: String)] {
        counts.lines.map { ("vcpu\(index) \($0.name)", "\($0.value)") }
    }

    func requestStop() {
        stopRequested.store(true, ordering: .releasing)
        kick()
    }

    /// Has the vCPU's thread tell `DormancyWatch` whether it sleeps for good. Any thread may call.
    func look() {
        mustLook.store(true, ordering: .releasing)
        kick()
    }

    /// Has the vCPU's thread look at what it is to do. Any thread may call.
    func kick() { thread.withLock { if let thread = $0 { davit_kick(thread) } } }

    private func lookForDormancy() -> VCPUExit? {
        var mp = kvm_mp_state()
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_MP_STATE, &mp)
        var isDormant = mp.mp_state != UInt32(bitPattern: KVM_MP_STATE_RUNNABLE)
        if mp.mp_state == UInt32(bitPattern: KVM_MP_STATE_HALTED) {
            var regs = kvm_regs()
            _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_REGS, &regs)
            isDormant = regs.rflags & RFLAGS.IF == 0
        }
        let isForEver = shared.dormancy.report(vcpu: index, isDormant: isDormant)
        guard isForEver else { return nil }
        finishAccess()
        return .haltedForever(report: saveState().report)
    }

    func run() -> VCPUExit {
        davit_kick_receive(target)
        thread.withLock { $0 = pthread_self() }
        if substitution.takesKernel {
            timer = davit_kick_timer_create()
            readSyncRegisters()
            turn = freshTurn
        }
        defer {
            thread.withLock { $0 = nil }
            if timer >= 0 { davit_kick_timer_delete(timer) }
            settleInterruptTable()
            timer = -1
            davit_kick_receive(nil)
        }
        while true {
            // First the area, then the requests: a kick in between shows in one of the two.
            area.pointee.immediate_exit = 0
            if stopRequested.exchange(false, ordering: .acquiring) {
                finishAccess()
                return .stopped
            }
            if mustLook.exchange(false, ordering: .acquiring), let exit = lookForDormancy() { return exit }
            guard let exit = turn == .software ? runSoftware(.untilPlainUserMode) : enter() else { continue }
            // The registers that software has changed KVM takes over as it is entered.
            if case .debug = exit { finishAccess() }
            return exit
        }
    }

    /// KVM_RUN once, and what it returned for. Non-nil ends `run`.
    private func enter() -> VCPUExit? {
        settleTranslations()
        settleStepping()
        let isAsking = mustAskForReadiness
        if isAsking {
            // KVM finishes what was begun, and goes no further. What is kicked meanwhile `run` sees before it comes here again.
            area.pointee.immediate_exit = 1
        } else if turn == .look {
            beginLook()
        }
        hasAskedForReadiness = false
        let result = davit_kvm(descriptor, DAVIT_KVM_RUN, 0)
        let hasLooked = endLook()
        if turn == .look && !hasLooked && !isAsking { turn = freshTurn }
        guard result >= 0 else {
            // EAGAIN: the vCPU was waiting for a SIPI and may go on.
            guard result == -EINTR || result == -EAGAIN else { return failure("KVM_RUN", result) }
            if isAsking { injectExternalInterrupt() }
            // A step or look that did not come to pass is still due.
            return nil
        }
        counts.exits &+= 1
        switch Int32(bitPattern: area.pointee.exit_reason) {
        case KVM_EXIT_IO: accessPort()
        case KVM_EXIT_MMIO: accessMMIO()
        case KVM_EXIT_DEBUG: return takeDebugExit()
        case KVM_EXIT_IRQ_WINDOW_OPEN: injectExternalInterrupt()
        case KVM_EXIT_IOAPIC_EOI: shared.localAPICs?.endOfInterrupt(vector: davit_kvm_eoi_vector(area))
        case KVM_EXIT_INTR: break
        case KVM_EXIT_DIRTY_RING_FULL:
            // KVM logs for the stand-in alone, so there is one.
            if let parts = try? substitution.get() { parts.collectWrites() }
        case KVM_EXIT_SHUTDOWN where hasLooked && !isAnythingDelivered: turn = .software
        case KVM_EXIT_SHUTDOWN where substitution.takesKernel:
            return runSoftware(.untilPlainUserMode, cause: .shutdown)
        case KVM_EXIT_SHUTDOWN: return .tripleFault(report: saveState().report)
        case KVM_EXIT_INTERNAL_ERROR where area.pointee.internal.suberror == UInt32(KVM_INTERNAL_ERROR_EMULATION):
            if let exit = completeInstruction() { return exit }
            return debug.singleStep && !substitution.takesKernel ? .debug(.singleStep) : nil
        case KVM_EXIT_INTERNAL_ERROR:
            return .failed(
                report: "KVM cannot go on (KVM_EXIT_INTERNAL_ERROR, suberror \(area.pointee.internal.suberror))\n"
                    + saveState().report)
        case KVM_EXIT_FAIL_ENTRY:
            let reason = String(area.pointee.fail_entry.hardware_entry_failure_reason, radix: 16)
            return .failed(report: "the processor refuses the guest's state (0x\(reason))\n" + saveState().report)
        case let reason: return .failed(report: "KVM_RUN ended with reason \(reason)\n" + saveState().report)
        }
        return nil
    }

    /// A kick of this thread in `nanoseconds`, where there is anything to look for.
    func setLook(_ nanoseconds: Int64) {
        if timer >= 0 { davit_kick_timer_set(timer, nanoseconds) }
    }

    /// An instruction whose access was answered is complete only when KVM_RUN was entered again: do that much of it.
    private func finishAccess() {
        while true {
            area.pointee.immediate_exit = 1
            let result = davit_kvm(descriptor, DAVIT_KVM_RUN, 0)
            area.pointee.immediate_exit = 0
            guard result >= 0 else { return }
            // The next part of the same instruction.
            switch Int32(bitPattern: area.pointee.exit_reason) {
            case KVM_EXIT_IO: accessPort()
            case KVM_EXIT_MMIO: accessMMIO()
            default: return
            }
        }
    }

    private func failure(_ request: String, _ result: Int32) -> VCPUExit {
        .failed(report: KVMError(request, result).description + "\n" + saveState().report)
    }

    // MARK: - Devices

    private func accessPort() {
        let exit = davit_kvm_port(area)
        // Safe: the kernel's offset and count lie in the shared area.
        var data = UnsafeMutableRawPointer(area) + Int(exit.data_offset)
        let width: AccessWidth = exit.size == 4 ? .four : exit.size == 2 ? .two : .one
        for _ in 0..<exit.count {
            if Int32(exit.direction) == KVM_EXIT_IO_OUT {
                let value: UInt32 =
                    switch width {
                    case .one: UInt32(data.load(as: UInt8.self))
                    case .two: UInt32(data.loadUnaligned(as: UInt16.self))
                    default: data.loadUnaligned(as: UInt32.self)
                    }
                shared.io.writePort(exit.port, width: width, value: value)
            } else {
                let value = shared.io.readPort(exit.port, width: width)
                switch width {
                case .one: data.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
                case .two: data.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
                default: data.storeBytes(of: value, as: UInt32.self)
                }
            }
            data += width.bytes
        }
    }

    private func accessMMIO() {
        let exit = davit_kvm_mmio(area)
        let data = UnsafeMutableRawPointer(davit_kvm_mmio_data(area))
        // Safe: the kernel gives at most the area's eight bytes.
        let size = min(Int(exit.size), 8)
        var done = 0
        while done < size {
            // Odd sizes, left by page crossings, go in pieces.
            let left = size - done
            let width: AccessWidth = left >= 8 ? .eight : left >= 4 ? .four : left >= 2 ? .two : .one
            let address = GuestPhysicalAddress(exit.address &+ UInt64(done))
            if exit.is_write != 0 {
                var value: UInt64 = 0
                withUnsafeMutableBytes(of: &value) {
                    $0.copyMemory(from: .init(start: data + done, count: width.bytes))
                }
                shared.io.writeMMIO(address, width: width, value: value)
            } else {
                var value = shared.io.readMMIO(address, width: width)
                (data + done).copyMemory(from: &value, byteCount: width.bytes)
            }
            done += width.bytes
        }
    }
}

/// What all vCPUs of a machine share.
struct KVMShared: Sendable {
    let host: KVMHost
    let machine: KVMVirtualMachine
    let io: any GuestIO
    /// Cycles per second of the guests' time-stamp counters.
    let tscFrequency: UInt64
    /// The guests' counters are the host's, as they have to be where engines change.
    let sharesCounter: Bool
    let dormancy: DormancyWatch
    let substitution: Substitution
    /// Nil if the kernel has all interrupt controllers.
    let localAPICs: KVMLocalAPICs?
}

/// What a vCPU's run loop has counted.
struct KVMStatistics {
    /// Returns of KVM_RUN that were not signals.
    var exits: UInt64 = 0
    /// Instructions that KVM gave up on.
    var emulationFailures: UInt64 = 0
    /// Times that software took over, and instructions that it left to KVM.
    var takeovers: UInt64 = 0
    var declines: UInt64 = 0
    /// Times that KVM was made to forget its translations.
    var translationDrops: UInt64 = 0

    var lines: [(name: String, value: UInt64)] {
        [
            ("exits", exits), ("emulation failures", emulationFailures), ("takeovers by software", takeovers),
            ("instructions left to KVM", declines), ("translations dropped", translationDrops),
        ]
    }
}
