// Package tune holds the commands sweep and tune, which run one load with
// several settings of the server and judge whether their difference is more
// than noise.
package tune
