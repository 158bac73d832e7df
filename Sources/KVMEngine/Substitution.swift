import MachineModel
import Synchronization

/// The processors in software of a machine: made when the first of them is needed.
final class Substitution: Sendable {
    typealias Make = @Sendable (PrincipalEngine) throws -> any StandIn

    struct Parts: Sendable {
        let standIn: any StandIn
        let writes: any WriteWatch

        /// Tells the stand-in of what KVM's guest has written to.
        func collectWrites() { writes.collect { standIn.engineDidWrite(page: $0) } }
    }

    private struct State {
        var parts: Parts?
        var principal: PrincipalEngine?
    }

    /// They run the guest's whole kernel, not only what KVM gives up on.
    let takesKernel: Bool
    private let machine: KVMVirtualMachine
    private let make: Make
    /// Guards that they are made once.
    private let state = Mutex(State())

    init(takesKernel: Bool, machine: KVMVirtualMachine, make: @escaping Make) {
        self.takesKernel = takesKernel
        self.machine = machine
        self.make = make
    }

    /// To be set when the vCPUs are made, before the first runs.
    var principal: PrincipalEngine? {
        get { state.withLock { $0.principal } }
        set { state.withLock { $0.principal = newValue } }
    }

    /// Throws why they cannot be made.
    func get() throws -> Parts {
        try state.withLock { state in
            if let parts = state.parts { return parts }
            guard let principal = state.principal else {
                preconditionFailure("a vCPU runs before the engine is complete")
            }
            let writes = try machine.makeWriteWatch()
            let standIn = try make(principal)
            standIn.observeCode { writes.watch(page: $0) }
            let new = Parts(standIn: standIn, writes: writes)
            state.parts = new
            return new
        }
    }
}
