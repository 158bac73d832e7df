import CDavit
import MachineModel

/// What a debugger on the host wants of a vCPU, and what it is told.
final class DebuggerState {
    var request = DebugRequest()
    /// The first watchpoint that the current instruction has met.
    var hit: Watchpoint?
    /// Why `RunExit.debug` was returned.
    var stop = DebugStop.singleStep

    func note(linear: UInt64, size: UInt64, isWrite: Bool) {
        hit = hit ?? request.watchpoints.first { $0.matches(linear: linear, size: size, isWrite: isWrite) }
    }
}

// While a debugger wants anything the run loop steps, and with watchpoints data accesses take the slow path: as for the guest's own
// debug registers, which stay the guest's.
extension Interpreter {
    func setDebug(_ request: DebugRequest) {
        debugger.request = request
        debugger.hit = nil
        system.pointee.isDebugged = !request.isEmpty
        system.pointee.isUserModeDebugged = request.concernsLowerHalf
        system.pointee.isSingleStepped = request.singleStep
        updateBreakpoints()
    }

    /// A single step is to lead to the next instruction of the program, not into the handler of an interrupt that came while the vCPU stood.
    var holdsInterrupts: Bool {
        system.pointee.isSingleStepped && cpu.pointee.halted == 0 && !system.pointee.waitsForSIPI
    }

    /// `step` with what a debugger wants around it.
    func debuggedStep() -> LookUp {
        let rip = cpu.pointee.rip
        let linear = is64Bit ? rip : (rip &+ segments[Int(DAVIT_CS.rawValue)].base) & 0xFFFF_FFFF
        if debugger.request.breakpoints.contains(linear) { return leave(.breakpoint) }
        guard step() else { return .leave(.tripleFault) }
        if system.pointee.hasDeclined { return .again }
        if let hit = debugger.hit.take() { return leave(.watchpoint(hit)) }
        return debugger.request.singleStep ? leave(.singleStep) : .again
    }

    private func leave(_ stop: DebugStop) -> LookUp {
        debugger.stop = stop
        return .leave(.debug)
    }
}
