import CDavit
import X86

// Exceptions, and what becomes of those raised while another is delivered (Intel SDM vol. 3, 6.15, #DF).
extension Interpreter {
    /// Delivers a fault of the instruction at `cpu.rip`. Returns false if the CPU shuts down: a triple fault.
    func raise(_ fault: GuestFault) -> Bool {
        if fault == .declined {
            system.pointee.hasDeclined = true
            davit_cpu_request(cpu, DAVIT_EXIT_STOP.rawValue)
            return true
        }
        var current = fault
        system.pointee.exceptions &+= 1
        traceException(fault)
        while true {
            var event = InterruptEvent(
                vector: current.vector, source: .hardware, errorCode: current.errorCode,
                // Real mode knows no error codes.
                hasErrorCode: current.hasErrorCode && isProtected, returnAddress: cpu.pointee.rip)
            // Faults restart their instruction; a #DB for an instruction breakpoint leaves RF to its handler.
            event.setsResume =
                current.vector != ExceptionVector.DF.rawValue && current.vector != ExceptionVector.DB.rawValue
            do throws(GuestFault) {
                try deliver(event)
                return true
            } catch {
                // Interrupt table or stack in registers of another engine's: there is no going on from there.
                if current.vector == ExceptionVector.DF.rawValue || error == .declined { return false }
                current = Self.combine(current, error)
            }
        }
    }

    /// Delivers something else: an interrupt, an NMI, a debug trap. A fault on the way is raised in its place, for a benign first
    /// event never makes a double fault. Returns false after a triple fault.
    func deliverOrRaise(_ event: InterruptEvent) -> Bool {
        do throws(GuestFault) {
            try deliver(event)
            return true
        } catch {
            return raise(error)
        }
    }

    private static func combine(_ first: GuestFault, _ second: GuestFault) -> GuestFault {
        let pageFault = ExceptionVector.PF.rawValue
        let isDouble =
            isContributory(first) && isContributory(second)
            || first.vector == pageFault && (isContributory(second) || second.vector == pageFault)
        return isDouble ? GuestFault(.DF, errorCode: 0) : second
    }

    private static func isContributory(_ fault: GuestFault) -> Bool {
        fault.vector == ExceptionVector.DE.rawValue
            || fault.vector >= ExceptionVector.TS.rawValue && fault.vector <= ExceptionVector.GP.rawValue
    }

    /// INT n, INT3, INTO: returns to the next instruction.
    func softwareInterrupt(_ vector: UInt8, source: InterruptEvent.Source) throws(GuestFault) {
        try deliver(InterruptEvent(vector: vector, source: source, returnAddress: cpu.pointee.next_rip))
    }
}
