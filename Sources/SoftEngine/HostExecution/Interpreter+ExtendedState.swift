import CDavit
import X86

// Saving and restoring extended state: FXSAVE, XSAVE and their like (Intel SDM vol. 1, 10.5 and chapter 13). The components are
// x87, SSE and AVX; the compacted format has the same offsets as the standard one, as AVX is the only extended component.
extension Interpreter {
    /// Which of the XSAVE family.
    enum SaveForm {
        case standard, optimized, compacted
    }

    /// A part of an XSAVE area and its place in the image in `davit_cpu`, in bytes.
    private struct Part {
        let offset: Int
        let count: Int
        let image: Int

        init(_ offset: Int, _ count: Int, image: Int? = nil) {
            self.offset = offset
            self.count = count
            self.image = image ?? offset
        }
    }

    private static let headerOffset = 512
    private static let compactedBit: UInt64 = 1 << 63
    private static let mxcsrDefault: UInt32 = 0x1F80

    // MARK: MXCSR

    func loadMXCSR(_ instruction: borrowing Instruction) throws(GuestFault) {
        if instruction.prefixes.contains(.vex) { try requireAVX() } else { try requireSSE() }
        let linear = try operandAddress(instruction, size: 4, write: false)
        let value = try load(UInt32.self, linear: linear)
        if value & ~host.mxcsrMask != 0 { throw .generalProtection }
        xsave.storeBytes(of: value, toByteOffset: 24, as: UInt32.self)
    }

    func storeMXCSR(_ instruction: borrowing Instruction) throws(GuestFault) {
        if instruction.prefixes.contains(.vex) { try requireAVX() } else { try requireSSE() }
        let linear = try operandAddress(instruction, size: 4, write: true)
        try store(mxcsr, linear: linear)
    }

    // MARK: FXSAVE and FXRSTOR

    private func requireFXState() throws(GuestFault) {
        if cpu.pointee.cr0 & (CR0.EM | CR0.TS) != 0 { throw .deviceNotAvailable }
    }

    func saveFXState(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireFXState()
        try requireEnd(instruction, write: true)
        let linear = try areaAddress(instruction, size: 512, alignment: 16, write: true)
        prepareLegacyArea(hasLongPointers: instruction.prefixes.contains(.w))
        // Access to the whole area is wanted, from its end.
        _ = try hostPointerForWrite(linear: linear &+ 511, size: 1)
        try storeParts([Part(0, 160 + vectorBytes)], linear: linear)
    }

    func restoreFXState(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireFXState()
        try requireEnd(instruction, write: false)
        let linear = try areaAddress(instruction, size: 512, alignment: 16, write: false)
        let area = try loadArea(linear, count: 512)
        if area.load(fromByteOffset: 24, as: UInt32.self) & ~host.mxcsrMask != 0 { throw .generalProtection }
        xsave.copyMemory(from: area, byteCount: 160 + vectorBytes)
        takeLegacyPointers(hasLongPointers: instruction.prefixes.contains(.w))
        davit_fpu_normalize(davit_cpu_xsave(cpu))
    }

    /// The end of FXSAVE's area lies within its segment: that comes before the alignment of its beginning. EFLAGS.AC asks for that of
    /// the area's fields beside.
    private func requireEnd(_ instruction: borrowing Instruction, write: Bool) throws(GuestFault) {
        let wrap = UInt64.max >> (64 &- UInt64(instruction.addressSize) &* 8)
        let end = (effectiveOffset(instruction) &+ 511) & wrap
        _ = try linearAddress(segment: instruction.segment, offset: end, size: 1, write: write)
        if wantsAlignment { try checkAlignment(uncheckedAddress(instruction), size: 512) }
    }

    /// As `SystemState.checksAlignment` is off while state areas are accessed.
    private var wantsAlignment: Bool {
        let flags = cpu.pointee.rflags & RFLAGS.AC != 0 && cpu.pointee.cr0 & CR0.AM != 0
        return flags && cpu.pointee.cpl == 3
    }

    /// The memory operand of FXSAVE, XSAVE and their like.
    private func areaAddress(
        _ instruction: borrowing Instruction, size: UInt64, alignment: UInt64, write: Bool
    ) throws(GuestFault) -> UInt64 {
        if uncheckedAddress(instruction) & (alignment &- 1) != 0 { throw .generalProtection }
        return try operandAddress(instruction, size: size, write: write)
    }

    /// Bytes of XMM registers that the mode has: outside 64-bit mode the upper eight are left alone.
    private var vectorBytes: Int { is64Bit ? 256 : 128 }

    /// Fills in what the image in `davit_cpu` does not keep: MXCSR_MASK, and the x87 pointers in one of their two forms.
    private func prepareLegacyArea(hasLongPointers: Bool) {
        xsave.storeBytes(of: host.mxcsrMask, toByteOffset: 28, as: UInt32.self)
        publishX87Pointers()
        if !hasLongPointers {
            let isKept = xsave.load(fromByteOffset: 2, as: UInt16.self) & 0x80 != 0 || host.keepsX87Pointers
            let cs = isKept ? UInt32(cpu.pointee.fpu_cs) : 0
            let ds = isKept ? UInt32(cpu.pointee.fpu_ds) : 0
            xsave.storeBytes(of: cs, toByteOffset: 12, as: UInt32.self)
            xsave.storeBytes(of: ds, toByteOffset: 20, as: UInt32.self)
        }
    }

    /// Takes the x87 pointers from the image, where they came in one of their two forms.
    private func takeLegacyPointers(hasLongPointers: Bool) {
        adoptX87Pointers()
        if hasLongPointers { return }
        cpu.pointee.fpu_cs = xsave.load(fromByteOffset: 12, as: UInt16.self)
        cpu.pointee.fpu_ds = xsave.load(fromByteOffset: 20, as: UInt16.self)
        cpu.pointee.fpu_ip &= 0xFFFF_FFFF
        cpu.pointee.fpu_dp &= 0xFFFF_FFFF
    }

    // MARK: The image as others see it

    /// Makes `davit_cpu.xsave` a whole area in the standard layout.
    func prepareImage() {
        publishX87Pointers()
        xsave.storeBytes(of: componentsInUse, toByteOffset: Self.headerOffset, as: UInt64.self)
        (xsave + Self.headerOffset + 8).initializeMemory(as: UInt8.self, repeating: 0, count: 56)
    }

    /// Takes an area in the standard layout over, into an image in its initial state.
    func takeImage(_ area: UnsafeRawBufferPointer) {
        guard let start = area.baseAddress, area.count >= 576 else { return }
        let present = area.loadUnaligned(fromByteOffset: Self.headerOffset, as: UInt64.self)
        func take(_ offset: Int, _ count: Int) {
            if offset + count <= area.count { (xsave + offset).copyMemory(from: start + offset, byteCount: count) }
        }
        if present & XCR0.x87 != 0 {
            take(0, 24)
            take(32, 128)
            adoptX87Pointers()
        } else {
            forgetX87Pointers()
        }
        if present & (XCR0.SSE | XCR0.AVX) != 0 { take(24, 4) }
        if present & XCR0.SSE != 0 { take(160, 256) }
        if present & XCR0.AVX != 0 { take(576, 256) }
        for component in opaqueComponents where present & component.bit != 0 { take(component.offset, component.size) }
        davit_fpu_normalize(davit_cpu_xsave(cpu))
    }

    // MARK: XSAVE

    /// EDX:EAX and XCR0: the components that are asked for.
    private func requestedComponents() throws(GuestFault) -> UInt64 {
        if cpu.pointee.cr4 & CR4.OSXSAVE == 0 { throw .invalidOpcode }
        if cpu.pointee.cr0 & CR0.TS != 0 { throw .deviceNotAvailable }
        let mask = gpr[GeneralRegister.RDX] << 32 | gpr[GeneralRegister.RAX] & 0xFFFF_FFFF
        return mask & cpu.pointee.xcr0
    }

    func saveExtendedState(_ instruction: borrowing Instruction, _ form: SaveForm) throws(GuestFault) {
        let requested = try requestedComponents()
        let linear = try areaAddress(instruction, size: 576, alignment: 64, write: true)
        // Access to legacy area and header is wanted, whatever of them is written.
        _ = try hostPointerForWrite(linear: linear, size: 1)
        _ = try hostPointerForWrite(linear: linear &+ 575, size: 1)
        let inUse = componentsInUse
        let header = xsave + Self.headerOffset
        var parts: [Part] = []
        if form == .compacted {
            header.storeBytes(of: requested & inUse, as: UInt64.self)
            header.storeBytes(of: requested | Self.compactedBit, toByteOffset: 8, as: UInt64.self)
            parts.append(Part(Self.headerOffset, 16))
        } else {
            let old = try load(UInt64.self, linear: linear &+ UInt64(Self.headerOffset))
            header.storeBytes(of: old & ~requested | requested & inUse, as: UInt64.self)
            parts.append(Part(Self.headerOffset, 8))
        }
        let saved = form == .standard ? requested : requested & inUse
        prepareLegacyArea(hasLongPointers: instruction.prefixes.contains(.w))
        if saved & XCR0.x87 != 0 {
            parts.append(Part(0, 24))
            parts.append(Part(32, 128))
        }
        let mxcsrOwners = form == .compacted ? saved & XCR0.SSE : requested & (XCR0.SSE | XCR0.AVX)
        if mxcsrOwners != 0 { parts.append(Part(24, 8)) }
        if saved & XCR0.SSE != 0 { parts.append(Part(160, vectorBytes)) }
        if saved & XCR0.AVX != 0 {
            _ = try hostPointerForWrite(linear: linear &+ 831, size: 1)
            parts.append(Part(576, vectorBytes))
        }
        for component in opaqueComponents where saved & component.bit != 0 {
            let offset =
                form == .compacted ? compactedOffset(of: component, among: requested) : component.offset
            parts.append(Part(offset, component.size, image: component.offset))
        }
        try storeParts(parts, linear: linear)
    }

    /// XINUSE: components that are not in their initial state (SDM vol. 1, 13.6).
    private var componentsInUse: UInt64 {
        var inUse: UInt64 = 0
        let control = xsave.load(as: UInt32.self)
        if control != 0x37F || xsave.load(fromByteOffset: 4, as: UInt8.self) != 0 || !isZero(32, 128)
            || cpu.pointee.fpu_ip | cpu.pointee.fpu_dp | UInt64(cpu.pointee.fpu_opcode) != 0
        {
            inUse |= XCR0.x87
        }
        if !isZero(160, 256) || mxcsr != Self.mxcsrDefault { inUse |= XCR0.SSE }
        if !isZero(576, 256) { inUse |= XCR0.AVX }
        for component in opaqueComponents where !isZero(component.offset, component.size) { inUse |= component.bit }
        return inUse
    }

    private func isZero(_ offset: Int, _ count: Int) -> Bool {
        var bits: UInt64 = 0
        for at in stride(from: offset, to: offset &+ count, by: 8) {
            bits |= xsave.load(fromByteOffset: at, as: UInt64.self)
        }
        return bits == 0
    }

    // MARK: XRSTOR

    func restoreExtendedState(_ instruction: borrowing Instruction) throws(GuestFault) {
        let requested = try requestedComponents()
        let linear = try areaAddress(instruction, size: 576, alignment: 64, write: false)
        let area = try loadArea(linear, count: 576)
        let present = area.load(fromByteOffset: Self.headerOffset, as: UInt64.self)
        let layout = area.load(fromByteOffset: Self.headerOffset + 8, as: UInt64.self)
        let isCompacted = layout & Self.compactedBit != 0
        let hasCompaction = host.hasCompaction
        let xcr0 = cpu.pointee.xcr0
        var reserved: UInt64 = 0
        for at in stride(from: 16, to: isCompacted ? 64 : 24, by: 8) {
            reserved |= area.load(fromByteOffset: Self.headerOffset + at, as: UInt64.self)
        }
        let isValid =
            reserved == 0 && present & ~xcr0 == 0
            && (isCompacted
                ? hasCompaction && layout & ~Self.compactedBit & ~xcr0 == 0 && present & ~layout == 0 : layout == 0)
        if !isValid { throw .generalProtection }

        let loadsSSE = requested & XCR0.SSE != 0
        let loadsAVX = requested & XCR0.AVX != 0
        var newMXCSR: UInt32?
        if isCompacted {
            if loadsSSE {
                newMXCSR = present & XCR0.SSE != 0 ? area.load(fromByteOffset: 24, as: UInt32.self) : Self.mxcsrDefault
            }
        } else if loadsSSE || loadsAVX {
            newMXCSR = area.load(fromByteOffset: 24, as: UInt32.self)
        }
        if let newMXCSR, newMXCSR & ~host.mxcsrMask != 0 { throw .generalProtection }
        try restoreOpaqueComponents(requested, present: present, layout: layout, linear: linear)
        let upper = loadsAVX && present & XCR0.AVX != 0 ? try loadUpperHalves(linear) : nil

        let bytes = vectorBytes
        if requested & XCR0.x87 != 0 {
            if present & XCR0.x87 != 0 {
                xsave.copyMemory(from: area, byteCount: 24)
                (xsave + 32).copyMemory(from: area + 32, byteCount: 128)
                takeLegacyPointers(hasLongPointers: instruction.prefixes.contains(.w))
            } else {
                resetX87()
            }
        }
        if loadsSSE { copyOrClear(160, from: present & XCR0.SSE != 0 ? area + 160 : nil, count: bytes) }
        if let newMXCSR { xsave.storeBytes(of: newMXCSR, toByteOffset: 24, as: UInt32.self) }
        if loadsAVX { copyOrClear(576, from: upper, count: bytes) }
        davit_fpu_normalize(davit_cpu_xsave(cpu))
    }

    /// Components beyond AVX. All are read before one is taken.
    private func restoreOpaqueComponents(
        _ requested: UInt64, present: UInt64, layout: UInt64, linear: UInt64
    ) throws(GuestFault) {
        guard requested & ~(XCR0.x87 | XCR0.SSE | XCR0.AVX) != 0 else { return }
        let isCompacted = layout & Self.compactedBit != 0
        for isDryRun in [true, false] {
            for component in opaqueComponents where requested & component.bit != 0 {
                let offset = isCompacted ? compactedOffset(of: component, among: layout) : component.offset
                for at in stride(from: 0, to: component.size, by: 8) {
                    let value =
                        present & component.bit == 0
                        ? 0 : try load(UInt64.self, linear: linear &+ UInt64(offset &+ at))
                    if !isDryRun {
                        xsave.storeBytes(of: value, toByteOffset: component.offset &+ at, as: UInt64.self)
                    }
                }
            }
        }
    }

    /// FNINIT's state with empty registers of zero: that of RESET is other.
    private func resetX87() {
        xsave.initializeMemory(as: UInt8.self, repeating: 0, count: 24)
        (xsave + 32).initializeMemory(as: UInt8.self, repeating: 0, count: 128)
        xsave.storeBytes(of: 0x37F, as: UInt16.self)
        forgetX87Pointers()
    }

    private func copyOrClear(_ offset: Int, from source: UnsafeMutableRawPointer?, count: Int) {
        if let source {
            (xsave + offset).copyMemory(from: source, byteCount: count)
        } else {
            (xsave + offset).initializeMemory(as: UInt8.self, repeating: 0, count: count)
        }
    }

    // MARK: Memory

    /// Reads into the scratch buffer, where the area begins at its start.
    private func loadArea(_ linear: UInt64, count: Int) throws(GuestFault) -> UnsafeMutableRawPointer {
        let area = host.scratch
        for at in stride(from: 0, to: count, by: 8) {
            area.storeBytes(of: try load(UInt64.self, linear: linear &+ UInt64(at)), toByteOffset: at, as: UInt64.self)
        }
        return area
    }

    /// AVX's component, into the scratch buffer behind the area.
    private func loadUpperHalves(_ linear: UInt64) throws(GuestFault) -> UnsafeMutableRawPointer {
        let place = host.scratch + 576
        for at in stride(from: 0, to: vectorBytes, by: 8) {
            place.storeBytes(
                of: try load(UInt64.self, linear: linear &+ 576 &+ UInt64(at)), toByteOffset: at, as: UInt64.self)
        }
        return place
    }

    /// Writes parts of the image in `davit_cpu`; access to all of them comes before the first write.
    private func storeParts(_ parts: [Part], linear: UInt64) throws(GuestFault) {
        for part in parts { _ = try hostPointerForWrite(linear: linear &+ UInt64(part.offset), size: part.count) }
        for part in parts {
            let start = linear &+ UInt64(part.offset)
            if let place = try hostPointerForWrite(linear: start, size: part.count) {
                place.copyMemory(from: xsave + part.image, byteCount: part.count)
                continue
            }
            for at in stride(from: 0, to: part.count, by: 8) {
                try store(xsave.load(fromByteOffset: part.image + at, as: UInt64.self), linear: start &+ UInt64(at))
            }
        }
    }
}
