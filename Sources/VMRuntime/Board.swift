import MachineModel

/// The chips of a machine from one reset to the next.
struct Board: Sendable {
    let engine: any Engine
    let control: BoardControl

    /// Cuts the board off from what outlives it: nothing comes from it, or reaches it, any more.
    func detach() { control.detach() }
}
