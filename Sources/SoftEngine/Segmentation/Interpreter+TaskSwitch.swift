import CDavit
import X86

// Task switches (Intel SDM vol. 3, 7.3), 16- and 32-bit. Long mode has none.
extension Interpreter {
    enum TaskSwitchCause {
        case jump
        /// CALL, or an interrupt or exception through a task gate.
        case call
        case interruptReturn
    }

    /// Where a task state keeps what (SDM vol. 3, figures 7-2 and 7-10).
    private struct Layout {
        let is32: Bool
        var size: UInt64 { is32 ? 4 : 2 }
        var minimumLimit: UInt32 { is32 ? 103 : 43 }
        /// EIP or IP; the flags and eight general registers follow.
        var instructionPointer: UInt64 { is32 ? 32 : 14 }
        var flags: UInt64 { instructionPointer &+ size }
        var general: UInt64 { flags &+ size }
        /// ES CS SS DS (FS GS), each in a slot of `size` bytes; then the LDT's selector.
        var segments: UInt64 { general &+ 8 &* size }
        var segmentCount: UInt64 { is32 ? 6 : 4 }
        var localTable: UInt64 { segments &+ segmentCount &* size }
    }

    func returnToPreviousTask() throws(GuestFault) {
        let link = try systemLoad(linear: systemAddress(segments[Int(DAVIT_TR.rawValue)].base), size: 2)
        try switchTask(UInt16(truncatingIfNeeded: link), cause: .interruptReturn, returnTo: cpu.pointee.next_rip)
    }

    /// Switches to the task whose state `selector` names; the old one will go on at `returnTo`. Faults up to the commit leave the old task in place; those after it
    /// belong to the new one, with `cpu.rip` already there.
    func switchTask(_ selector: UInt16, cause: TaskSwitchCause, returnTo: UInt64) throws(GuestFault) {
        let vector: ExceptionVector = cause == .interruptReturn ? .TS : .GP
        guard !Self.isNull(selector), selector & 4 == 0 else { throw fault(vector, selector: selector) }
        var descriptor = try readDescriptor(selector, else: vector)
        let isBusy = descriptor.type & 2 != 0
        let isTask = descriptor.type & 0x15 == 1
        guard isTask, isBusy == (cause == .interruptReturn) else { throw fault(vector, selector: selector) }
        guard descriptor.isPresent else { throw fault(.NP, selector: selector) }
        let layout = Layout(is32: descriptor.type & 8 != 0)
        guard descriptor.limit >= layout.minimumLimit else { throw fault(.TS, selector: selector) }

        let old = segments[Int(DAVIT_TR.rawValue)]
        // Both states must be at hand before anything changes: reads and writes are tried at their ends.
        let newEnd = systemAddress(descriptor.base &+ UInt64(layout.minimumLimit))
        _ = try translate(systemAddress(descriptor.base), mode: systemMode, kind: .write)
        _ = try translate(newEnd, mode: systemMode, kind: .write)
        try saveTask(old, cause: cause, returnTo: returnTo)

        if cause != .call {
            var previous = try readDescriptor(old.selector)
            try setBusy(false, descriptor: &previous)
        }
        if cause == .call { try systemStore(UInt64(old.selector), linear: systemAddress(descriptor.base), size: 2) }
        if cause != .interruptReturn { try setBusy(true, descriptor: &descriptor) }
        descriptor.low |= 2 << 40
        segments[Int(DAVIT_TR.rawValue)] = descriptor.segment(selector: selector)
        try loadTask(descriptor, layout: layout, isNested: cause == .call)
    }

    private func saveTask(
        _ task: davit_segment, cause: TaskSwitchCause, returnTo: UInt64
    ) throws(GuestFault) {
        let layout = Layout(is32: task.type & 8 != 0)
        let size = Int(layout.size)
        var flags = cpu.pointee.rflags
        if cause == .interruptReturn { flags &= ~RFLAGS.NT }
        _ = try translate(systemAddress(task.base), mode: systemMode, kind: .write)
        _ = try translate(systemAddress(task.base &+ UInt64(layout.minimumLimit)), mode: systemMode, kind: .write)
        func save(_ value: UInt64, at offset: UInt64, size: Int) throws(GuestFault) {
            try systemStore(value, linear: systemAddress(task.base &+ offset), size: size)
        }
        try save(returnTo, at: layout.instructionPointer, size: size)
        try save(flags, at: layout.flags, size: size)
        for i in 0..<8 { try save(gpr[i], at: layout.general &+ UInt64(i) &* layout.size, size: size) }
        for i in 0..<Int(layout.segmentCount) {
            try save(UInt64(segments[i].selector), at: layout.segments &+ UInt64(i) &* layout.size, size: 2)
        }
    }

    private func loadTask(_ descriptor: Descriptor, layout: Layout, isNested: Bool) throws(GuestFault) {
        let size = Int(layout.size)
        func read(_ offset: UInt64, size: Int) throws(GuestFault) -> UInt64 {
            try systemLoad(linear: systemAddress(descriptor.base &+ offset), size: size)
        }
        let cr3 = layout.is32 ? try read(28, size: 4) : cpu.pointee.cr3
        let rip = try read(layout.instructionPointer, size: size)
        var flags = try read(layout.flags, size: size) & Self.writableFlags | RFLAGS.reserved1
        if isNested { flags |= RFLAGS.NT }
        var selectors = [UInt16](repeating: 0, count: 6)
        for i in 0..<8 {
            let value = try read(layout.general &+ UInt64(i) &* layout.size, size: size)
            gpr[i] = layout.is32 ? value : gpr[i] & 0xFFFF_0000 | value
        }
        for i in 0..<Int(layout.segmentCount) {
            let value = try read(layout.segments &+ UInt64(i) &* layout.size, size: 2)
            selectors[i] = UInt16(truncatingIfNeeded: value)
        }
        let localTable = UInt16(truncatingIfNeeded: try read(layout.localTable, size: 2))
        let trap = layout.is32 ? try read(100, size: 2) & 1 : 0

        // From here on the new task runs: its faults are reported at its own instruction pointer.
        cpu.pointee.next_rip = rip
        cpu.pointee.rip = rip
        cpu.pointee.cr0 |= CR0.TS
        if layout.is32 && cpu.pointee.cr0 & CR0.PG != 0 && cr3 != cpu.pointee.cr3 { try loadCR3(cr3) }
        // Until their descriptors are read the registers hold selectors alone.
        for i in 0..<6 {
            segments[i] = davit_segment(base: 0, limit: 0, selector: selectors[i], attributes: 0)
        }
        segments[Int(DAVIT_LDTR.rawValue)] = davit_segment(base: 0, limit: 0, selector: localTable, attributes: 0)
        setFlags(flags)
        if flags & RFLAGS.VM != 0 {
            for i in 0..<6 { segments[i] = Self.virtual8086Segment(selectors[i]) }
            setCodeSegment(segments[Int(DAVIT_CS.rawValue)], cpl: 3)
            segments[Int(DAVIT_LDTR.rawValue)] = try readLocalTable(localTable, else: .TS)
        } else {
            try loadTaskSegments(selectors, localTable: localTable)
        }
        guard rip <= UInt64(segments[Int(DAVIT_CS.rawValue)].limit) else { throw .generalProtection }
        if trap != 0 { raiseDebugTrap(DR6.BT) }
    }

    private func loadTaskSegments(_ selectors: [UInt16], localTable: UInt16) throws(GuestFault) {
        let codeSelector = selectors[Int(DAVIT_CS.rawValue)]
        let cpl = UInt32(codeSelector & 3)
        cpu.pointee.cpl = cpl
        updateMode()
        segments[Int(DAVIT_LDTR.rawValue)] = try readLocalTable(localTable, else: .TS)
        guard !Self.isNull(codeSelector) else { throw fault(.TS, selector: codeSelector) }
        var code = try readDescriptor(codeSelector, else: .TS)
        guard code.isCode, code.isConforming ? code.dpl <= cpl : code.dpl == cpl else {
            throw fault(.TS, selector: codeSelector)
        }
        try checkCodeSegment(&code, selector: codeSelector)
        let stack = try readStackSegment(
            selectors[Int(DAVIT_SS.rawValue)], cpl: cpl, vector: .TS, for64Bit: false)
        segments[Int(DAVIT_SS.rawValue)] = stack
        setCodeSegment(code.segment(selector: codeSelector), cpl: cpl)
        for register in [DAVIT_ES, DAVIT_DS, DAVIT_FS, DAVIT_GS] {
            let i = Int(register.rawValue)
            do throws(GuestFault) {
                segments[i] = try readSegment(UInt8(truncatingIfNeeded: i), selector: selectors[i])
            } catch {
                throw error.vector == ExceptionVector.GP.rawValue
                    ? GuestFault(.TS, errorCode: error.errorCode) : error
            }
        }
    }
}
