import CDavit
import GuestMemory
import MachineModel

/// Carries out one vCPU's instructions one by one: complete and exact, the reference for the translator.
///
/// Everything hot lives in `cpu`; this object's fields are constant, so that no access check stands in the way.
/// Only the vCPU's own thread calls it.
final class Interpreter {
    /// The architectural state; owned by this object, page aligned.
    let cpu: UnsafeMutablePointer<davit_cpu>
    /// `cpu.gpr`.
    let gpr: UnsafeMutablePointer<UInt64>
    /// `cpu.segment`.
    let segments: UnsafeMutablePointer<davit_segment>
    let memory: GuestMemory
    let io: any GuestIO

    init(memory: GuestMemory, io: any GuestIO) {
        let raw = UnsafeMutableRawPointer.allocate(byteCount: MemoryLayout<davit_cpu>.stride, alignment: 4096)
        raw.initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<davit_cpu>.stride)
        cpu = raw.bindMemory(to: davit_cpu.self, capacity: 1)
        gpr = davit_cpu_gpr(cpu)
        segments = davit_cpu_segment(cpu)
        self.memory = memory
        self.io = io
        cpu.pointee.tlb_current = davit_cpu_tlb(cpu, 0)
    }

    deinit { cpu.deallocate() }

    /// 64-bit mode: CS.L in long mode.
    @inline(__always) var is64Bit: Bool { cpu.pointee.code_size == 8 }
}
