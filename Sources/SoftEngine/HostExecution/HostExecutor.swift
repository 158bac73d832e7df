import CDavit
import HostLinux
import X86Assembler

/// What one vCPU needs to have the host's CPU carry out guest instructions: thunks by what they do, and a place for operands.
///
/// A thunk is a small function around one instruction with its operands renamed: registers come from and go to `davit_cpu`,
/// memory operands stand where the caller says. Thunks are made when first needed and kept; when there is no room left,
/// all are forgotten. Only the vCPU's own thread uses this object.
final class HostExecutor {
    /// Carries out its instruction. Arguments: where ModRM.reg's register is kept, ModRM.rm's register or memory, VEX.vvvv's
    /// register, the register in the immediate, and the vCPU. Returns 0, or the vector of the exception that the host raised:
    /// then only MXCSR's flags have changed.
    typealias Thunk =
        @convention(c) (
            UnsafeMutableRawPointer, UnsafeMutableRawPointer, UnsafeMutableRawPointer, UnsafeMutableRawPointer,
            UnsafeMutablePointer<davit_cpu>
        ) -> UInt64

    private struct Slot: BitwiseCopyable {
        /// `ThunkForm.key`; 0 is free.
        var key: UInt64
        var code: UInt
    }

    private let pool: CodePool
    private let state: UnsafeMutablePointer<State>
    private let slots: UnsafeMutablePointer<Slot>
    /// Room for any memory operand, with as many bytes before it as needed to place it like the guest's; aligned to 64 bytes.
    let scratch: UnsafeMutableRawPointer
    let entries: UnsafePointer<OpcodeEntry>
    /// The bits of MXCSR that the host has.
    let mxcsrMask = davit_mxcsr_mask()
    let keepsX87Pointers = davit_fxsave_keeps_pointers() != 0
    /// Bits of the x87 pointers above those that the host keeps.
    let unusedPointerBits = 64 - UInt64(davit_x87_pointer_bits())
    /// XSAVEC, and with it XRSTOR of compacted areas.
    let hasCompaction = InstructionFeatures.host.contains(.xsavec)

    private struct State {
        var segment: CodePool.Segment
        var count = 0
    }

    private static let slotCount = 8192
    private static let codeSize = 1 << 20
    /// In bytes: an XSAVE area with AVX.
    static let scratchSize = 832 + 64

    init() throws(SystemError) {
        pool = try CodePool(segmentSize: Self.codeSize, segmentCount: 1)
        let addresses = pool.addresses
        guard davit_catch_thunk_faults(addresses.lowerBound, addresses.upperBound) == 0 else {
            throw SystemError("sigaction", code: 12)
        }
        state = .allocate(capacity: 1)
        state.initialize(to: State(segment: pool.emptySegment(0)))
        slots = .allocate(capacity: Self.slotCount)
        slots.initialize(repeating: Slot(key: 0, code: 0), count: Self.slotCount)
        scratch = .allocate(byteCount: Self.scratchSize, alignment: 64)
        scratch.initializeMemory(as: UInt8.self, repeating: 0, count: Self.scratchSize)
        entries = OpcodeTable.shared.entries.baseAddress.unsafelyUnwrapped
    }

    deinit {
        davit_release_faults(pool.addresses.lowerBound)
        state.deallocate()
        slots.deallocate()
        scratch.deallocate()
    }

    @inline(__always)
    func shape(of instruction: borrowing Instruction) -> VectorShape { entries[Int(instruction.entry)].shape }

    /// The thunk for an instruction, made if there is none yet.
    @inline(__always)
    func thunk(
        _ instruction: borrowing Instruction, _ shape: VectorShape, allowsMisaligned: Bool = false
    ) -> Thunk {
        let key = ThunkForm.key(instruction, shape, allowsMisaligned: allowsMisaligned)
        var i = Self.firstSlot(key)
        while slots[i].key != key {
            if slots[i].key == 0 {
                return make(ThunkForm(instruction, shape, allowsMisaligned: allowsMisaligned), key, slot: i)
            }
            i = (i &+ 1) & (Self.slotCount &- 1)
        }
        // Safe: the slot holds the address of code that `ThunkForm.emit` wrote with this signature.
        return unsafeBitCast(slots[i].code, to: Thunk.self)
    }

    @inline(__always)
    private static func firstSlot(_ key: UInt64) -> Int {
        Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> 51)
    }

    @inline(never)
    private func make(_ form: ThunkForm, _ key: UInt64, slot: Int) -> Thunk {
        var slot = slot
        var code = state.pointee.count < Self.slotCount * 3 / 4 ? state.pointee.segment.append(form.emit) : nil
        if code == nil {
            slots.update(repeating: Slot(key: 0, code: 0), count: Self.slotCount)
            state.pointee = State(segment: pool.emptySegment(0))
            code = state.pointee.segment.append(form.emit)
            slot = Self.firstSlot(key)
        }
        guard let code else { preconditionFailure("a thunk is larger than all code memory") }
        slots[slot] = Slot(key: key, code: code)
        state.pointee.count &+= 1
        // Safe: as in `thunk`.
        return unsafeBitCast(code, to: Thunk.self)
    }
}
