// The SDK imports a video effect library that these tests don't use.
export class SelfieSegmentation {}
export default {};
