// The local APIC of one virtual CPU: Intel SDM vol. 3, chapter 11 (xAPIC and x2APIC, as of the P6 and later: version 0x14).
// Left out: CMCI, thermal and performance interrupts never fire, since nothing models what they report; SMIs are dropped.

import MachineModel
import Synchronization
import X86

/// What the vCPU thread has to do beside taking interrupts.
struct APICRequests: OptionSet, BitwiseCopyable, Sendable {
    var rawValue: UInt32

    static let NMI = APICRequests(rawValue: 1)
    static let INIT = APICRequests(rawValue: 2)
    /// Start at `startUpVector`; it counts only in the wait-for-SIPI state, which a pending INIT leads to.
    static let startUp = APICRequests(rawValue: 4)
    /// Another vCPU asks for the end of HLT.
    static let kick = APICRequests(rawValue: 8)

    /// The SIPI's vector: the code begins at this page.
    var startUpVector: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 8) }
}

/// One vCPU's local APIC.
///
/// Interrupts arrive from any thread and without a lock: a bit in IRR or in `requests`, then `wake`. Everything else, register
/// access included, is for the vCPU's own thread, the timer aside, which has a lock (see `TimerState`).
///
/// The vCPU thread's part: when woken, `takeRequests`; while it may take interrupts and `hasInterrupt`, `acknowledge`. `wake` is also called
/// on the vCPU's own thread, when an EOI, a lower TPR or an unmasked LINT0 lets a waiting interrupt through.
// Unchecked: all mutable state is atomic, under the Mutex, or the vCPU thread's own.
final class LocalAPIC: @unchecked Sendable {
    /// The vCPU's index, and its APIC ID.
    let index: Int
    /// Owns this object.
    unowned let bus: LocalAPICs
    let registers = APICRegisterFile()
    let timer: Mutex<TimerState>

    /// IA32_APIC_BASE; other threads read the mode from it.
    private let apicBase: Atomic<UInt64>
    private let requests = Atomic<UInt32>(0)
    /// Errors gathered since ESR was last written.
    private let errors = Atomic<UInt32>(0)

    init(index: Int, bus: LocalAPICs) {
        self.index = index
        self.bus = bus
        apicBase = Atomic(APICBase.resetAddress | APICBase.EN | (index == 0 ? APICBase.BSP : 0))
        timer = Mutex(TimerState())
        resetRegisters()
        // Through the bus, so that both are alive while the clock's thread is in here.
        timer.withLock { $0.timer = bus.clock.makeTimer { [weak bus] in bus?.apics[index].timerFired() } }
    }

    var id: UInt32 { UInt32(truncatingIfNeeded: index) }

    // MARK: the vCPU thread's contract

    /// Whether an interrupt above the processor priority, or the 8259's, waits to be taken.
    @inline(__always)
    var hasInterrupt: Bool {
        // The register is 0 while nothing is in service and TPR is 0, the usual case.
        registers.highestVector(in: APICRegister.IRR) >> 4 > UInt8(truncatingIfNeeded: registers[APICRegister.PPR]) >> 4
            || hasExternalInterrupt
    }

    /// Takes the most urgent interrupt and returns its vector; the 8259's comes before the APIC's own. Nil if none is deliverable.
    func acknowledge() -> UInt8? {
        if hasExternalInterrupt, let vector = bus.acknowledgeExternalInterrupt() { return vector }
        let vector = registers.highestVector(in: APICRegister.IRR)
        guard vector >> 4 > UInt8(truncatingIfNeeded: registers[APICRegister.PPR]) >> 4 else { return nil }
        registers.remove(vector: vector, from: APICRegister.IRR)
        registers.insert(vector: vector, in: APICRegister.ISR)
        updatePPR()
        return vector
    }

    /// Whether `takeRequests` would return something.
    @inline(__always)
    var hasRequests: Bool { requests.load(ordering: .acquiring) != 0 }

    /// Takes NMI, INIT and SIPI requests; they are pending no more. INIT is to be obeyed before the SIPI.
    func takeRequests() -> APICRequests {
        APICRequests(rawValue: requests.exchange(0, ordering: .sequentiallyConsistent))
    }

    /// CR8: the task priority class, 0-15.
    var cr8: UInt64 {
        get { UInt64(registers[APICRegister.TPR] >> 4 & 15) }
        set { writeTPR(UInt32(truncatingIfNeeded: newValue & 15) << 4) }
    }

    /// The state after INIT (11.4.7.3): ID and APIC base stay.
    func initialize() {
        resetRegisters()
        errors.store(0, ordering: .relaxed)
        timer.withLock { $0.disarm() }
    }

    /// The state after RESET: nothing pending, xAPIC mode at the usual address.
    func reset() {
        setBase(APICBase.resetAddress | APICBase.EN)
        requests.store(0, ordering: .sequentiallyConsistent)
        initialize()
    }

    private func resetRegisters() {
        for register in 0..<APICRegister.count { registers[register] = 0 }
        // Six LVT entries, EOI broadcast suppression.
        registers[APICRegister.version] = 1 << 24 | 5 << 16 | 0x14
        registers[APICRegister.DFR] = 0xFFFF_FFFF
        registers[APICRegister.SVR] = 0xFF
        for entry in APICRegister.LVTTimer...APICRegister.LVTError { registers[entry] = APICLVT.masked }
        // Virtual wire mode, as a PC's firmware leaves it to the boot loader: the 8259 reaches the boot processor through LINT0.
        if index == 0 { registers[APICRegister.LVTLINT0] = UInt32(APICDeliveryMode.external.rawValue) << 8 }
        setIdentity()
    }

    // MARK: mode

    /// IA32_APIC_BASE.
    @inline(__always)
    var base: UInt64 { apicBase.load(ordering: .relaxed) }

    @inline(__always)
    var isX2APIC: Bool { base & APICBase.EXTD != 0 }

    /// Globally enabled; if not, the CPU is one without APIC, and LINT0 its INTR pin.
    @inline(__always)
    var isEnabled: Bool { base & APICBase.EN != 0 }

    /// Enabled by software as well: it takes fixed interrupts.
    @inline(__always)
    var acceptsInterrupts: Bool { isEnabled && registers[APICRegister.SVR] & APICSVR.enable != 0 }

    /// The BSP flag stays as it is: which vCPU boots is the machine's choice.
    func setBase(_ value: UInt64) {
        let flag = index == 0 ? APICBase.BSP : 0
        apicBase.store(value & ~APICBase.BSP | flag, ordering: .sequentiallyConsistent)
        setIdentity()
    }

    /// ID, and in x2APIC mode the LDR that follows from it (11.12.10.2).
    private func setIdentity() {
        if isX2APIC {
            registers[APICRegister.ID] = id
            registers[APICRegister.LDR] = (id >> 4) << 16 | 1 << (id & 15)
        } else {
            registers[APICRegister.ID] = id << 24
        }
    }

    // MARK: arrival, on any thread

    /// Accepts a fixed or lowest-priority interrupt.
    func accept(vector: UInt8, levelTriggered: Bool) {
        guard acceptsInterrupts else { return }
        if vector < 16 { return report(APICESR.receivedIllegalVector) }
        // Before IRR: who takes the interrupt must see how it was triggered.
        if levelTriggered {
            registers.insert(vector: vector, in: APICRegister.TMR)
        } else if registers.contains(vector: vector, in: APICRegister.TMR) {
            registers.remove(vector: vector, from: APICRegister.TMR)
        }
        // A bit that was set has woken the vCPU already.
        if registers.insert(vector: vector, in: APICRegister.IRR) { bus.wake(index) }
    }

    func acceptNMI() {
        requests.bitwiseOr(APICRequests.NMI.rawValue, ordering: .sequentiallyConsistent)
        bus.wake(index)
    }

    /// Ends the HLT that the vCPU is in, or the next one.
    func acceptKick() {
        requests.bitwiseOr(APICRequests.kick.rawValue, ordering: .sequentiallyConsistent)
        bus.wake(index)
    }

    /// INIT: a SIPI that came before it is void.
    func acceptINIT() {
        var old = requests.load(ordering: .relaxed)
        while true {
            let new = old & APICRequests.NMI.rawValue | APICRequests.INIT.rawValue
            let (done, now) = requests.compareExchange(
                expected: old, desired: new, ordering: .sequentiallyConsistent)
            if done { break }
            old = now
        }
        bus.wake(index)
    }

    /// A start-up IPI; of several that wait the first counts.
    func acceptStartUp(vector: UInt8) {
        var old = requests.load(ordering: .relaxed)
        while old & APICRequests.startUp.rawValue == 0 {
            let new = old & 0xFF | APICRequests.startUp.rawValue | UInt32(vector) << 8
            let (done, now) = requests.compareExchange(
                expected: old, desired: new, ordering: .sequentiallyConsistent)
            if done { break }
            old = now
        }
        bus.wake(index)
    }

    /// Notes an error, and raises the error interrupt if it is new.
    func report(_ error: UInt32) {
        guard errors.bitwiseOr(error, ordering: .sequentiallyConsistent).oldValue & error == 0 else { return }
        let entry = registers[APICRegister.LVTError]
        let vector = UInt8(truncatingIfNeeded: entry)
        // An illegal vector here would report itself for ever.
        if entry & APICLVT.masked == 0, vector >= 16 { accept(vector: vector, levelTriggered: false) }
    }

    /// Writing ESR shows the errors gathered so far and begins anew.
    func latchErrors() {
        registers[APICRegister.ESR] = errors.exchange(0, ordering: .sequentiallyConsistent)
    }

    // MARK: the 8259 through LINT0

    /// Only the boot processor's LINT0 is wired to the 8259.
    @inline(__always)
    var hasExternalInterrupt: Bool { index == 0 && bus.externalLevel && takesExternalInterrupts }

    private var takesExternalInterrupts: Bool {
        guard isEnabled else { return true }
        let entry = registers[APICRegister.LVTLINT0]
        return entry & APICLVT.masked == 0 && APICLVT.deliveryMode(entry) == .external
    }

    /// INTR went up.
    func externalInterruptRose() {
        if takesExternalInterrupts { return bus.wake(index) }
        let entry = registers[APICRegister.LVTLINT0]
        guard isEnabled, entry & APICLVT.masked == 0 else { return }
        switch APICLVT.deliveryMode(entry) {
        case .fixed: accept(vector: UInt8(truncatingIfNeeded: entry), levelTriggered: false)
        case .NMI: acceptNMI()
        case .INIT: acceptINIT()
        default: break
        }
    }

    // MARK: priorities and the end of an interrupt

    /// 11.8.3.1: the higher of task priority and the class in service.
    func updatePPR() {
        let task = registers[APICRegister.TPR] & 0xFF
        let inService = UInt32(registers.highestVector(in: APICRegister.ISR))
        registers[APICRegister.PPR] = task >> 4 >= inService >> 4 ? task : inService & 0xF0
    }

    func writeTPR(_ value: UInt32) {
        registers[APICRegister.TPR] = value & 0xFF
        updatePPR()
        wakeIfInterruptWaits()
    }

    /// EOI (11.8.5): the highest interrupt in service is done; the I/O APIC hears of level-triggered ones.
    func endOfInterrupt() {
        let vector = registers.highestVector(in: APICRegister.ISR)
        guard vector != 0 else { return }
        registers.remove(vector: vector, from: APICRegister.ISR)
        updatePPR()
        if registers.contains(vector: vector, in: APICRegister.TMR),
            registers[APICRegister.SVR] & APICSVR.suppressEOIBroadcast == 0
        {
            bus.broadcastEOI(vector: vector)
        }
        wakeIfInterruptWaits()
    }

    /// The vector is in service by an edge, and none waits to be taken: its end means nothing to anybody else.
    func isAlone(inService vector: UInt8) -> Bool {
        registers.highestVector(in: APICRegister.ISR) == vector
            && !registers.contains(vector: vector, in: APICRegister.TMR)
            && registers.highestVector(in: APICRegister.IRR) == 0
    }

    func wakeIfInterruptWaits() {
        if hasInterrupt { bus.wake(index) }
    }
}
