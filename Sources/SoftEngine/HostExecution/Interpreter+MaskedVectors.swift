import CDavit
import X86

// Vector instructions whose memory operand comes in elements that fault one by one, or not at all.
extension Interpreter {
    /// VZEROUPPER and VZEROALL.
    func clearVectors(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireAVX()
        let count = is64Bit ? 256 : 128
        (xsave + 576).initializeMemory(as: UInt8.self, repeating: 0, count: count)
        if instruction.prefixes.contains(.l) {
            (xsave + 160).initializeMemory(as: UInt8.self, repeating: 0, count: count)
        }
    }

    /// MASKMOVQ and MASKMOVDQU: stores the bytes of one register whose byte in the mask register has its top bit set.
    func storeMaskedBytes(_ instruction: borrowing Instruction) throws(GuestFault) {
        let shape = host.shape(of: instruction)
        let isMMX = shape.reg == .mmx
        if isMMX {
            try requireMMX()
        } else if instruction.prefixes.contains(.vex) {
            try requireAVX()
        } else {
            try requireSSE()
        }
        if isMMX { enterMMX() }
        let source = isMMX ? mmxPlace(instruction.reg) : vectorPlace(instruction.reg)
        let mask = isMMX ? mmxPlace(instruction.rm) : vectorPlace(instruction.rm)
        let count = isMMX ? 8 : 16
        var offset = gpr[GeneralRegister.RDI]
        if instruction.addressSize == 4 { offset &= 0xFFFF_FFFF }
        if instruction.addressSize == 2 { offset &= 0xFFFF }
        let linear = try linearAddress(
            segment: instruction.segment, offset: offset, size: UInt64(count), write: true)
        let checksAlignment = system.pointee.checksAlignment
        if checksAlignment { try checkAlignment(linear, size: 8) }
        system.pointee.checksAlignment = false
        defer { system.pointee.checksAlignment = checksAlignment }
        // Access to all the bytes that are stored comes before the first store. A fault names the operand's start in its page.
        // AMD's CPUs want all bytes, whatever the mask.
        if isAMD { _ = try hostPointerForWrite(linear: linear, size: count) }
        for i in 0..<count where mask.load(fromByteOffset: i, as: UInt8.self) & 0x80 != 0 {
            let place = linear &+ UInt64(i)
            _ = try hostPointerForWrite(linear: max(linear, place & ~0xFFF), size: 1)
        }
        for i in 0..<count where mask.load(fromByteOffset: i, as: UInt8.self) & 0x80 != 0 {
            try store(source.load(fromByteOffset: i, as: UInt8.self), linear: linear &+ UInt64(i))
        }
    }

    /// VMASKMOVPS, VMASKMOVPD, VPMASKMOVD and VPMASKMOVQ: elements whose mask has its top bit clear are neither read nor
    /// written, and do not fault.
    func moveMasked(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireAVX()
        let opcode = instruction.opcode
        let isStore = opcode & 0xFE == 0x2E || opcode == 0x8E
        let isWide = opcode >= 0x8C ? instruction.prefixes.contains(.w) : opcode & 1 != 0
        let element = isWide ? 8 : 4
        let size = instruction.prefixes.contains(.l) ? 32 : 16
        let segment = instruction.segment
        let offset = effectiveOffset(instruction)
        let wrap = UInt64.max >> (64 &- UInt64(instruction.addressSize) &* 8)
        let mask = vectorPlace(instruction.vvvv)
        let register = vectorPlace(instruction.reg)
        let bytes = UInt64(element)
        if isStore {
            // Access to all elements comes before the first store.
            for at in stride(from: 0, to: size, by: element) where Self.isSelected(mask, at, element) {
                let linear = try linearAddress(
                    segment: segment, offset: (offset &+ UInt64(at)) & wrap, size: bytes, write: true)
                _ = try hostPointerForWrite(linear: linear, size: element)
            }
            for at in stride(from: 0, to: size, by: element) where Self.isSelected(mask, at, element) {
                let linear = try linearAddress(
                    segment: segment, offset: (offset &+ UInt64(at)) & wrap, size: bytes, write: true)
                try store(Self.element(register, at, element), linear: linear, size: UInt8(element))
            }
            return
        }
        let result = host.scratch
        result.initializeMemory(as: UInt8.self, repeating: 0, count: 32)
        for at in stride(from: 0, to: size, by: element) where Self.isSelected(mask, at, element) {
            let linear = try linearAddress(
                segment: segment, offset: (offset &+ UInt64(at)) & wrap, size: bytes, write: false)
            Self.putElement(try load(linear: linear, size: UInt8(element)), result + at, element)
        }
        register.copyMemory(from: result, byteCount: 16)
        (register + 416).copyMemory(from: result + 16, byteCount: 16)
    }

    /// VGATHERxxx and VPGATHERxx. An element that is done has its mask cleared: after a fault the instruction goes on there.
    /// Intel's CPUs spread the masks' top bits before the first access, AMD's leave those alone that are still to come.
    func gather(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireAVX()
        let element = Int(instruction.operandSize)
        let indexSize = instruction.opcode & 1 != 0 ? 8 : 4
        let length = instruction.prefixes.contains(.l) ? 32 : 16
        let count = length / max(element, indexSize)
        let register = vectorPlace(instruction.reg)
        let mask = vectorPlace(instruction.vvvv)
        let indices = vectorPlace(instruction.index)
        if !isAMD {
            for i in 0..<count {
                let isSet = Self.isSelected(mask, i * element, element)
                Self.putElement(isSet ? UInt64.max : 0, Self.place(mask, i * element), element)
            }
        }
        for i in 0..<count {
            guard Self.isSelected(mask, i * element, element) else {
                Self.putElement(0, Self.place(mask, i * element), element)
                continue
            }
            var index = Self.element(indices, i * indexSize, indexSize)
            if indexSize == 4 { index = UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: index))) }
            let offset = gatherOffset(instruction, index)
            let linear = try linearAddress(
                segment: instruction.segment, offset: offset, size: UInt64(element), write: false)
            Self.putElement(try load(linear: linear, size: UInt8(element)), Self.place(register, i * element), element)
            Self.putElement(0, Self.place(mask, i * element), element)
        }
        // The mask ends as zero, and what no element covers of the destination too.
        for at in stride(from: 0, to: 32, by: 4) {
            Self.putElement(0, Self.place(mask, at), 4)
            if at >= count * element { Self.putElement(0, Self.place(register, at), 4) }
        }
    }

    private func gatherOffset(_ instruction: borrowing Instruction, _ index: UInt64) -> UInt64 {
        var offset = UInt64(bitPattern: instruction.displacement) &+ index << UInt64(instruction.scale & 3)
        if instruction.base < 16 { offset &+= gpr[Int(instruction.base)] }
        return instruction.addressSize == 8 ? offset : offset & 0xFFFF_FFFF
    }

    // MARK: Elements

    /// Byte `at` of a vector register kept in two halves.
    @inline(__always)
    private static func place(_ register: UnsafeMutableRawPointer, _ at: Int) -> UnsafeMutableRawPointer {
        register + (at < 16 ? at : at &- 16 &+ 416)
    }

    @inline(__always)
    private static func isSelected(_ mask: UnsafeMutableRawPointer, _ at: Int, _ size: Int) -> Bool {
        place(mask, at).load(fromByteOffset: size &- 1, as: UInt8.self) & 0x80 != 0
    }

    @inline(__always)
    private static func element(_ register: UnsafeMutableRawPointer, _ at: Int, _ size: Int) -> UInt64 {
        let place = place(register, at)
        return size == 8 ? place.load(as: UInt64.self) : UInt64(place.load(as: UInt32.self))
    }

    @inline(__always)
    private static func putElement(_ value: UInt64, _ place: UnsafeMutableRawPointer, _ size: Int) {
        if size == 8 {
            place.storeBytes(of: value, as: UInt64.self)
        } else {
            place.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
        }
    }
}
